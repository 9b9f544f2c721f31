"""Whether a data set's ids and numbers mean what they meant to the model: told from the manifests, not from names and sizes."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from dmoe.config.sections import DataConfig
from dmoe.data.dataset.compatibility import check_compatible, inputs_of, model_inputs
from dmoe.data.dataset.earlier import with_identities
from dmoe.data.dataset.manifest import load_manifest
from dmoe.errors import UserError
from tests.unit.data.compared import (
    changed,
    earlier,
    edit,
    features,
    make_day,
    make_days,
    refusal,
    swap,
    tokens_of,
    without_identities,
    write_day,
)


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_days(tmp_path_factory.mktemp("days"))


def test_the_ids_of_another_day_are_refused_though_every_name_and_size_agrees(days: Path) -> None:
    one, two = (load_manifest(str(days / name)) for name in ("day1", "day2"))
    assert one.schema_hash == two.schema_hash
    message = refusal(days / "day1", days / "day2")
    assert "feature site " in message
    assert "--vocabulary" in message
    for model, data in (("day1", "next"), ("day1", "day1"), ("next", "day1")):
        for modes in ({}, {"ordered": True}, {"ordered": True, "grown": True}):
            assert refusal(days / model, days / data, **modes) == ""


def test_a_data_set_that_was_made_again_is_the_same(days: Path, tmp_path: Path) -> None:
    """Other shards, blocks and order of sums: the moments differ by rounding at most."""
    again = make_day(tmp_path / "again", days / "day1.csv", rows_per_shard=64, block_bytes=500)
    assert refusal(days / "day1", again) == ""
    assert refusal(days / "day1", make_day(tmp_path / "shuffled", days / "day1.csv", shuffle=True)) == ""


@pytest.mark.parametrize(
    ("changes", "feature", "what"),
    [
        ({"dense": [{"name": "price", "transform": "log1p"}]}, "price", "log1p"),
        ({"dense": ["price"]}, "price", "is x"),
        ({"missing": ["0.0"]}, "price", "'0.0' as missing"),
        ({"categorical": features("price_bucket", bucket={"edges": [1.5, 5]})}, "price_bucket", "bucket edges"),
        ({"categorical": features("price_bucket", bucket={"quantiles": 3})}, "price_bucket", "bucket edges"),
        ({"categorical": features("price_bucket", bucket="log2")}, "price_bucket", "log2 buckets"),
        ({"categorical": features("price_bucket", bucket=None)}, "price_bucket", "kind token"),
        ({"categorical": features("tags", max_values=3)}, "tags", "max_values 3"),
        ({"categorical": features("tags", max_values=None)}, "tags", "all tokens"),
        ({"categorical": features("tags", pooling="sum")}, "tags", "pooling sum"),
        ({"categorical": features("hour", part="weekday")}, "hour", "weekdays"),
    ],
)
def test_another_way_to_read_the_same_log_is_refused(days: Path, tmp_path: Path, changes: dict[str, Any], feature: str, what: str) -> None:
    other = make_day(tmp_path / "d", days / "day1.csv", schema=changed(**changes))
    message = refusal(days / "day1", other)
    assert f"feature {feature} " in message
    assert what in message


def test_other_moments_are_refused_and_rounding_is_not(days: Path, tmp_path: Path) -> None:
    write_day(tmp_path / "dearer.csv", "abcd", price=1.5)
    # Buckets of the same numbers: only the moments differ.
    dearer = make_day(tmp_path / "d", tmp_path / "dearer.csv", schema=changed(categorical=["site"]))
    plain = make_day(tmp_path / "e", days / "day1.csv", schema=changed(categorical=["site"]))
    message = refusal(plain, dearer)
    assert re.search("feature price .*mean", message)
    manifest = load_manifest(str(plain))
    (number,) = manifest.dense
    assert number.identity is not None
    assert number.identity.moments is not None
    mean, deviation = number.identity.moments
    for factor, refused in ((1e-9, False), (1e-3, True)):
        identity = number.identity.model_copy(update={"moments": (mean + factor * deviation, deviation * (1 + factor))})
        other = manifest.model_copy(update={"dense": (number.model_copy(update={"identity": identity}),)})
        assert bool(refusal(manifest, other, plain)) == refused


def test_features_that_the_model_does_not_read_do_not_matter(days: Path, tmp_path: Path) -> None:
    fewer = make_day(tmp_path / "d", days / "day1.csv", schema=changed(dense=[], categorical=["site", {"name": "hour", "part": "weekday"}]))
    reads = model_inputs(DataConfig(features=["site"], dense="buckets"), load_manifest(str(days / "day1")))
    check_compatible(reads, inputs_of(load_manifest(str(fewer))), str(fewer))
    assert "feature price " in refusal(days / "day1", fewer)


def test_another_order_of_features_matters_only_where_the_model_is_built_from_it(days: Path, tmp_path: Path) -> None:
    turned = make_day(tmp_path / "d", days / "day1.csv", schema=changed(categorical=features("")[::-1]))
    assert refusal(days / "day1", turned) == ""
    message = refusal(days / "day1", turned, ordered=True)
    assert re.search("feature hour .*feature site", message)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda table: table.set_column(1, "id", pa.array(table["id"].to_numpy()[::-1])), "ids .*2, 3"),
        (
            lambda table: table.set_column(0, "token", pa.array([None, *tokens_of(table)[1:]], pa.large_binary())),
            "without a token",
        ),
        (lambda table: table.set_column(0, "token", pa.array(range(len(table)))), "tokens .*int64"),
        (lambda table: table.set_column(2, "count", pa.array(["1"] * len(table))), "column count"),
        (lambda table: table.set_column(0, "token", pa.array([[1]] * len(table))), "token .*list"),
        (lambda table: table.drop_columns("token"), "cannot be read"),
        (lambda table: table[:-1], "ids.* manifest"),
    ],
)
@pytest.mark.parametrize("earlier", [False, True])
def test_a_vocabulary_that_contradicts_itself_or_its_manifest_is_refused(
    days: Path, tmp_path: Path, change: Callable[[pa.Table], pa.Table], said: str, earlier: bool
) -> None:
    shutil.copytree(days / "day1", tmp_path / "d")
    path = swap(tmp_path / "d", "site", change)
    if earlier:
        without_identities(tmp_path / "d")
    with pytest.raises(UserError, match=said) as caught:
        make_day(tmp_path / "s", days / "day2.csv", vocabulary=str(tmp_path / "d"))
    assert str(caught.value).startswith(str(path))


def test_a_token_that_an_earlier_vocabulary_lists_twice_is_refused(days: Path, tmp_path: Path) -> None:
    shutil.copytree(days / "day1", tmp_path / "d")
    without_identities(tmp_path / "d")
    swap(tmp_path / "d", "site", lambda table: table.set_column(0, "token", pa.array([b"a"] * len(table), pa.large_binary())))
    with pytest.raises(UserError, match=r"site\.parquet: .*twice"):
        make_day(tmp_path / "s", days / "day2.csv", vocabulary=str(tmp_path / "d"))


def test_a_manifest_whose_parts_say_different_things_is_refused(days: Path, tmp_path: Path) -> None:
    for number, (change, said) in enumerate(
        [
            (lambda m: m["dense"][0]["identity"].update(moments=[0.0, 1.0]), "feature price: "),
            (lambda m: m["made_by"]["moments"].update(price=[0.0, 1.0]), "feature price: "),
            (lambda m: m["made_by"]["moments"].clear(), "price"),
            (lambda m: m["made_by"]["moments"].update(price=["x", "y"]), "price"),
            (lambda m: m["made_by"]["schema"]["categorical"][2].update(max_values=2), "feature tags: "),
            (lambda m: m["made_by"]["schema"]["categorical"].pop(), "made_by.schema "),
        ]
    ):
        shutil.copytree(days / "day1", tmp_path / str(number))
        edit(tmp_path / str(number), change)
        with pytest.raises(UserError, match=said) as caught:
            make_day(tmp_path / "s", days / "day2.csv", vocabulary=str(tmp_path / str(number)))
        assert str(caught.value).startswith(f"{tmp_path / str(number)}/manifest.json: ")


def test_what_an_earlier_data_set_tells_is_compared(days: Path, tmp_path: Path) -> None:
    one = with_identities(earlier(tmp_path / "one", days / "day1"), str(tmp_path / "one"))
    two = with_identities(earlier(tmp_path / "two", days / "day2"), str(tmp_path / "two"))
    assert "feature site " in refusal(one, two, tmp_path / "two")
    assert refusal(one, days / "next") == ""
    shutil.rmtree(tmp_path / "one" / "vocabulary")
    unknown = with_identities(load_manifest(str(tmp_path / "one")), str(tmp_path / "one"))
    # Without the vocabulary, what shows that the ids are the same counts; the rest is compared all the same.
    assert refusal(unknown, days / "next") == ""
    assert refusal(unknown, days / "day1") == ""
    assert "feature site cannot be compared" in refusal(unknown, days / "day2")
    assert "feature site cannot be compared" in refusal(days / "day2", unknown, tmp_path / "one")
    other = make_day(tmp_path / "other", days / "day1.csv", schema=changed(dense=[{"name": "price", "transform": "log1p"}]))
    assert re.search("feature price .*log1p", refusal(unknown, other))


def test_vocabularies_count_only_beside_the_shards_that_they_were_made_with(days: Path, tmp_path: Path) -> None:
    """A run's copy of its manifest, and its data set made anew in place since."""
    kept = earlier(tmp_path / "d", days / "day1")
    shutil.rmtree(tmp_path / "d")
    shutil.copytree(days / "day2", tmp_path / "d")
    model = with_identities(kept, str(tmp_path / "d"))
    assert model.categorical[0].identity is not None
    assert model.categorical[0].identity.tokens is None
    message = refusal(model, tmp_path / "d")
    assert "feature site cannot be compared" in message
    assert "data.path" in message


def test_data_of_an_unknown_maker_fits_the_model_of_the_same_rows_alone(days: Path, tmp_path: Path) -> None:
    earlier(tmp_path / "d", days / "day1")
    edit(tmp_path / "d", lambda manifest: manifest.update(made_by={}, dataset="by hand"))
    unknown = with_identities(load_manifest(str(tmp_path / "d")), str(tmp_path / "d"))
    assert unknown.dense[0].identity is None
    assert refusal(unknown, unknown, tmp_path / "d") == ""
    assert refusal(unknown, days / "day1") == ""
    assert "feature price cannot be compared" in refusal(unknown, days / "day2")
