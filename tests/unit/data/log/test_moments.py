"""Mean and deviation of a standardised column, against exact fractions, over sizes that float64's squares do not hold."""

import json
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmoe.data.dataset.manifest import load_manifest
from dmoe.data.prepare.count.moments import Moments
from dmoe.data.prepare.schema import load_schema, parse_schema
from dmoe.data.prepare.tokens.token_columns import transformed
from dmoe.errors import UserError
from tests.unit.data.log.logs import make, read_split

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")


def moments_of(values: list[float], block: int) -> tuple[float, float]:
    moments = Moments()
    for begin in range(0, len(values), block):
        moments.add(np.array(values[begin : begin + block]))
    return moments.result()


def exact(values: list[float]) -> tuple[float, float]:
    numbers = [Fraction(value) for value in values]
    mean = sum(numbers) / len(numbers)
    variance = sum((number - mean) ** 2 for number in numbers) / len(numbers)
    # The root of a fraction far outside float64's range: an even power of two is taken out first.
    shift = (variance.numerator.bit_length() - variance.denominator.bit_length()) // 2
    return float(mean), math.ldexp(math.sqrt(variance / Fraction(2) ** (2 * shift)), shift)


@given(
    st.lists(st.floats(-1, 1, allow_subnormal=False), min_size=2, max_size=40),
    st.sampled_from([-1000, -540, -400, -30, 0, 60, 399, 512, 1022]),
    st.integers(1, 7),
)
def test_moments_equal_exact_arithmetic_at_any_scale(values: list[float], exponent: int, block: int):
    values = [math.ldexp(round(value, 4), exponent) for value in values]
    mean, deviation = exact(values)
    found = moments_of(values, block)
    assert found[0] == pytest.approx(mean, rel=1e-9, abs=1e-12 * max(map(abs, values)))
    assert found[1] == pytest.approx(deviation if len(set(values)) > 1 else 1.0, rel=1e-9)


@pytest.mark.parametrize("outlier", [1e200, -1e200, 1.7976931348623157e308, 1e155])
@pytest.mark.parametrize("at", [0, 5, 399])
def test_one_huge_number_does_not_overflow(outlier: float, at: int):
    values = [float(number % 17) for number in range(400)]
    values[at] = outlier
    found = moments_of(values, 64)
    assert found == pytest.approx(exact(values), rel=1e-12)


@pytest.mark.parametrize("constant", [0.1, -0.1, 1 / 3, 1e-7, 123456.789, 1.7e18, 0.0, 1e300, 1e-300])
@pytest.mark.parametrize("rows", [1, 3, 324, 5000])
def test_a_constant_column_has_deviation_1(constant: float, rows: int):
    assert moments_of([constant] * rows, 324) == (constant, 1.0)
    assert moments_of([constant] * (rows - 1) + [float(np.nextafter(constant, math.inf))], 100)[1] == 1.0


def test_a_small_spread_that_is_no_rounding_is_kept():
    values = [1.7e12 + second for second in (0, 1, 2, 3)]
    assert moments_of(values, 2) == pytest.approx(exact(values), rel=1e-12)


TREE = {"label": "click", "dense": [{"name": "price", "transform": "standardise"}], "categorical": ["site"]}


def write(path: Path, prices: list[str]) -> Path:
    path.write_text("click,site,price\n" + "".join(f"{number % 2},s{number % 3},{price}\n" for number, price in enumerate(prices)))
    return path


def test_a_column_that_is_constant_in_training_stays_small_on_other_values(tmp_path: Path):
    schema = parse_schema(TREE, "schema.yaml")
    data = make(tmp_path / "d", write(tmp_path / "a.csv", ["0.1"] * 400), schema=schema, rows_per_shard=400)
    assert load_manifest(str(data)).made_by["moments"] == {"price": [0.1, 1.0]}
    log = write(tmp_path / "b.csv", ["0.1", "0.2"] * 20)
    later = make(tmp_path / "l", log, schema=schema, vocabulary=str(data), scoring=True)
    assert [row["price"] for row in read_split(later, "score")] == pytest.approx([0, 0.1] * 20, abs=1e-7)


@pytest.mark.parametrize(("outliers", "lone"), [([1e200], 1e200), ([-5e4], -5e4), ([1e200, 1e200], None), ([60.0], None), ([], None)])
def test_one_number_that_makes_the_whole_spread_is_found(outliers: list[float], lone: float | None):
    moments = Moments()
    moments.add(np.array([float(number % 17) for number in range(400)] + outliers))
    assert moments.lone_number() == lone


def test_a_data_set_with_one_huge_number_is_finite(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    prices = [str(number % 17) for number in range(400)]
    prices[5] = "1e200"
    data = make(tmp_path / "d", write(tmp_path / "a.csv", prices), schema=parse_schema(TREE, "schema.yaml"), split="1,0,0")
    said = capsys.readouterr().err
    assert "price: one number, 1e+200" in said
    found = [row["price"] for row in read_split(data, "train")]
    mean, deviation = exact([float(price) for price in prices])
    assert found == pytest.approx([(float(price) - mean) / deviation for price in prices], rel=1e-5, abs=1e-7)


@given(
    st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=20),
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(2.3e-308, 1.79e308),
    st.sampled_from(["none", "log1p", "standardise"]),
)
def test_a_dense_feature_of_any_finite_number_is_finite(values: list[float], mean: float, deviation: float, transform: str):
    found = transformed(np.array(values), transform, (mean, deviation))
    assert np.isfinite(found).all()
    limit = float(np.finfo(np.float32).max)
    if transform == "standardise":
        reference = [(Fraction(value) - Fraction(mean)) / Fraction(deviation) for value in values]
        assert found.astype(float) == pytest.approx([float(max(min(x, Fraction(limit)), -Fraction(limit))) for x in reference], rel=1e-6)


@pytest.mark.parametrize("moments", [None, {}, {"price": [0.1]}, {"price": [0.1, 0.0]}, {"price": [0.1, -1.0]}, {"price": ["1", 1.0]}])
def test_kept_moments_that_numbers_cannot_be_standardised_by_are_refused(tmp_path: Path, moments: object):
    data = make(tmp_path / "d", write(tmp_path / "a.csv", ["1", "2"] * 50), schema=parse_schema(TREE, "schema.yaml"))
    manifest = json.loads((data / "manifest.json").read_text())
    manifest["made_by"]["moments"] = moments
    (data / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"manifest\.json: .*price"):
        make(tmp_path / "s", tmp_path / "a.csv", vocabulary=str(data), scoring=True)


@pytest.mark.parametrize("edges", ["[0, .inf]", "[.nan]", "[-.inf, 1]"])
def test_edges_of_buckets_are_finite(tmp_path: Path, edges: str):
    """The manifest, which holds them, is JSON."""
    path = tmp_path / "schema.yaml"
    path.write_text(f"label: click\ncategorical:\n- {{name: b, column: price, bucket: {{edges: {edges}}}}}\n")
    with pytest.raises(UserError, match=r"schema\.yaml: categorical\.0\.bucket\.edges\.\d: .*number"):
        load_schema(str(path))
