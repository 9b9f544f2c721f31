"""Numeric columns in buckets: equal to a plain reference, with the same bytes for any blocks, and the same for raw rows to score."""

import math
from bisect import bisect_right
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmoe.data.dataset.manifest import load_manifest
from dmoe.data.prepare.kept import load_kept
from dmoe.data.prepare.schema import Bucket, Schema, parse_schema
from dmoe.data.prepare.split.split_rules import NAMES, Splitter, parse_shares
from dmoe.data.prepare.tokens.buckets import Buckets, make_buckets
from dmoe.errors import UserError
from tests.unit.data.log.logs import data_bytes, make, read_split
from tests.unit.data.reference import bucket as criteo_bucket

FEATURES: list[dict[str, Any]] = [
    {"name": "log2", "column": "x", "bucket": "log2"},
    {"name": "squared", "column": "x", "bucket": "log_squared"},
    {"name": "cut", "column": "x", "bucket": {"edges": [-1, 0, 2.5]}, "min_count": 1},
    {"name": "fifths", "column": "x", "bucket": {"quantiles": 5}},
]


def schema(features: list[Any] = FEATURES, **changes: Any) -> Schema:
    return parse_schema({"label": "click", "dense": ["x"], "categorical": features} | changes, "schema.yaml")


def reference(value: float, name: str, edges: dict[str, list[float]]) -> str:
    if name == "log2":
        return str(0 if abs(value) < 1 else int(math.copysign(1 + math.floor(math.log2(abs(value))), value)))
    if name == "squared":
        return str(math.floor(value) if value <= 2 else 3 + math.floor(math.log(value) ** 2))
    return str(bisect_right(edges[name], value))


def numbers(rows: int) -> list[float | None]:
    rng = np.random.default_rng(0)
    drawn = np.round(np.where(rng.random(rows) < 0.3, 0, rng.normal(size=rows) * 10 ** rng.integers(0, 5, rows)), 3)
    return [None if missing else float(x) for x, missing in zip(drawn, rng.random(rows) < 0.1, strict=True)]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    lines = [f"{place % 3 == 0:d},{'' if x is None else x}" for place, x in enumerate(numbers(400))]
    (tmp_path / "log.csv").write_text("click,x\n" + "\n".join(lines) + "\n")
    return tmp_path / "log.csv"


def test_ids_equal_the_plain_reference(tmp_path: Path, log: Path):
    folder = make(tmp_path / "d", log, schema=schema())
    values, split_of = numbers(400), Splitter(parse_shares("0.8,0.1,0.1"), "random", 0).assign(0, 400, 400)
    train = sorted(x for x, split in zip(values, split_of, strict=True) if split == 0 and x is not None)
    # An inverse of the empirical distribution: the smallest number with that share of the rows at or below it.
    fifths = sorted({train[math.ceil(len(train) * share / 5) - 1] for share in range(1, 5)})
    edges = {"cut": [-1, 0, 2.5], "fifths": fifths}
    assert load_kept(str(folder)).edges == {"fifths": fifths}
    for feature in FEATURES:
        name, least = feature["name"], feature.get("min_count", 3)
        tokens = [None if x is None else reference(x, name, edges) for x in values]
        counts = Counter(token for token, split in zip(tokens, split_of, strict=True) if split == 0 and token is not None)
        kept = sorted((token for token in counts if counts[token] >= least), key=lambda token: (-counts[token], token))
        ids = {token: 2 + place for place, token in enumerate(kept)} | {None: 0}
        for number, split in enumerate(NAMES):
            mine = [ids.get(token, 1) for token, held in zip(tokens, split_of, strict=True) if held == number]
            assert [row[name] for row in read_split(folder, split)] == mine
    assert {one.kind for one in load_manifest(str(folder)).categorical} == {"bucket"}


def test_bytes_depend_on_no_block_and_raw_rows_get_the_same_ids(tmp_path: Path, log: Path):
    folder = make(tmp_path / "d", log, schema=schema())
    small = make(tmp_path / "small", log, schema=schema(), block_bytes=50, workers=3, memory_limit=1)
    assert data_bytes(small) == data_bytes(folder)
    (tmp_path / "raw.csv").write_text("x,other\n" + "\n".join(f"{'' if x is None else x},1" for x in numbers(400)) + "\n")
    scored = read_split(make(tmp_path / "s", tmp_path / "raw.csv", vocabulary=str(folder), scoring=True), "score")
    split_of = Splitter(parse_shares("0.8,0.1,0.1"), "random", 0).assign(0, 400, 400)
    for number, split in enumerate(NAMES):
        mine = [row for row, held in zip(scored, split_of, strict=True) if held == number]
        assert mine == [{key: value for key, value in row.items() if key != "label"} for row in read_split(folder, split)]


@given(st.integers(-(2**31) + 1, 2**31 - 1) | st.integers(-5, 60))
def test_log_squared_is_criteos_bucket(value: int):
    assert Buckets(Bucket(formula="log_squared"), np.empty(0)).numbers(np.array([float(value)]))[0] == criteo_bucket(value)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_log2_holds_its_number_between_powers_of_two(value: float):
    (number,) = Buckets(Bucket(formula="log2"), np.empty(0)).numbers(np.array([value]))
    low, high = (0.0, 1.0) if number == 0 else (2.0 ** (abs(int(number)) - 1), math.ldexp(1.0, min(abs(int(number)), 1023)))
    assert low <= abs(value)
    assert abs(value) < high or abs(int(number)) == 1024
    assert number == 0 or np.sign(number) == np.sign(value)


def test_extreme_numbers_have_buckets():
    values = np.array([1.7e308, -1.7e308, 0.0, 5e-324])
    for feature in make_buckets(schema(), {"fifths": []}).values():
        assert len(feature.coded(pa.array(values), "string").codes) == 4
    assert Buckets(Bucket(formula="log2"), np.empty(0)).numbers(values).tolist() == [1024, -1024, 0, 0]


@pytest.mark.parametrize(
    ("bucket", "message"),
    [
        ("log3", "schema.yaml: categorical.0.bucket.formula: input should be 'log2' or 'log_squared', found 'log3'"),
        ({"edges": [1, 1]}, "edges: expected ascending numbers"),
        ({"edges": []}, "categorical.0.bucket.edges: list should have at least 1 item"),
        ({"edges": [0.5], "quantiles": 3}, "give one of log2, log_squared, {edges: [...]} and {quantiles: ...}"),
        ({"quantiles": 1}, "categorical.0.bucket.quantiles: input should be greater than or equal to 2"),
        ({"quantile": 5}, "quantile: unknown key, did you mean 'quantiles'?"),
    ],
)
def test_a_bucket_that_cannot_be_is_one_line(bucket: Any, message: str):
    with pytest.raises(UserError) as caught:
        schema([{"name": "a", "bucket": bucket}])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_word_among_the_numbers_is_a_bad_row(tmp_path: Path):
    (tmp_path / "log.csv").write_text("click,x\n1,2\n0,many\n")
    with pytest.raises(UserError, match=r"log\.csv:3: x is 'many'"):
        make(tmp_path / "d", tmp_path / "log.csv", schema=schema(dense=[]))
