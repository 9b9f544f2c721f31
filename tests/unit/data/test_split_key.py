"""`--split-by key`: all rows of one value of a column are in one split."""

from fractions import Fraction

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dmoe.data.prepare.options import Options
from dmoe.data.prepare.pipeline import preprocess
from dmoe.data.prepare.schema import parse_schema
from dmoe.data.prepare.split.split_rules import Splitter
from dmoe.errors import UserError
from tests.unit.data.every_schema import data_of, kind_of, label_of, raw_rows, read, run, uniform
from tests.unit.data.log.logs import read_split
from tests.unit.data.reference import mix
from tests.unit.data.test_every_schema import hash_of

KEYS = {"criteo": "C3", "avazu": "device_ip", "any": "site"}
"""Columns; those of criteo and any have missing values."""


def split_of(text: str, row: int, seed: int) -> int:
    """Of the shares 0.6, 0.3 and 0.1."""
    u = Fraction(mix(mix(seed) ^ hash_of(text.encode())), 2**64) if text else uniform(seed, row)
    return (u >= Fraction("0.6")) + (u >= Fraction("0.9"))


def test_all_rows_of_a_value_are_in_one_split(days, tmp_path):
    key = KEYS[kind_of(days)]
    rows = raw_rows(days)
    expected = [split_of(row[key], number, 5) for number, row in enumerate(rows)]
    by_option = {"split_by": "key", "split_key": key, "split": "0.6,0.3,0.1", "seed": 5}
    made = run(days, tmp_path / "a", **by_option).manifest
    for place, name in enumerate(made.splits):
        here = [row for row, split in zip(rows, expected, strict=True) if split == place]
        assert read(tmp_path / "a", name)["label"].to_pylist() == [label_of(row) for row in here]
    assert {row[key] for row in rows} - {""}
    assert made.made_by["split_key"] == made.made_by["schema"]["split_key"] == key
    in_schema = by_option | {"split_key": None, "schema": days[0].model_copy(update={"split_key": key})}
    run(days, tmp_path / "b", **in_schema, block_bytes=4000, workers=3)
    assert data_of(tmp_path / "a") == data_of(tmp_path / "b")
    other = run(days, tmp_path / "c", **by_option | {"seed": 6}).manifest
    assert other.splits["train"].shards != made.splits["train"].shards


def test_data_to_score_need_no_key(days, tmp_path):
    run(days, tmp_path / "a", split_by="key", split_key=KEYS[kind_of(days)], min_count=1)
    scored = run(days, tmp_path / "b", vocabulary=str(tmp_path / "a"), scoring=True).manifest
    assert scored.splits["score"].rows == 1500
    assert "split_key" not in scored.made_by["schema"]


def test_shares_hold_and_rows_without_a_value_go_by_their_number():
    splitter = Splitter((Fraction("0.5"), Fraction("0.3"), Fraction("0.2")), "key", 3)
    keys = np.random.default_rng(0).integers(1, 2**62, 40_000)
    found = np.bincount(splitter.assign(0, len(keys), len(keys), keys), minlength=3) / len(keys)
    np.testing.assert_allclose(found, [0.5, 0.3, 0.2], atol=4 * 0.5 / 200)
    missing = splitter.assign(7, 1000, 2000, np.zeros(1000, np.int64))
    alone = Splitter(splitter.shares, "random", 3).assign(7, 1000, 2000)
    np.testing.assert_array_equal(missing, alone)


def test_a_parquet_log_splits_as_its_text_does(tmp_path):
    users = [None if row % 7 == 0 else row % 40 for row in range(400)]
    pq.write_table(pa.table({"y": [row % 2 for row in range(400)], "u": users, "a": ["x"] * 400}), tmp_path / "log.parquet")
    (tmp_path / "log.csv").write_text("y,u,a\n" + "".join(f"{row % 2},{'' if u is None else u},x\n" for row, u in enumerate(users)))
    for form in ("csv", "parquet"):
        tree = {"format": form, "label": "y", "split_key": "u", "categorical": ["a"]}
        preprocess(Options([str(tmp_path / f"log.{form}")], str(tmp_path / form), parse_schema(tree, "s"), split_by="key"))
    for name in ("train", "validation", "test"):
        assert read_split(tmp_path / "csv", name) == read_split(tmp_path / "parquet", name)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"split_by": "key"}, "--split-key"),
        ({"split_key": "site"}, "--split-by key"),
        ({"split_by": "key", "split_key": "gone"}, "'gone'"),
    ],
)
def test_a_mistake_is_named(days, tmp_path, options, named):
    with pytest.raises(UserError, match=named):
        run(days, tmp_path / "a", **options)
