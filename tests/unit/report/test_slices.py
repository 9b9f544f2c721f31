"""Slices by a feature: which rows each has, single- and multi-valued, from a data set's shards."""

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dmoe.config.config import Config
from dmoe.data.dataset.files import file_sha256
from dmoe.data.dataset.manifest import CategoricalFeature, Manifest, Shard, Split, load_manifest, save_manifest
from dmoe.data.dataset.reading.epoch_order import order_name
from dmoe.errors import UserError
from dmoe.report.slices import column_of_test
from dmoe.report.slices import groups as groups_of

TAGS = [[2, 3], [0], [3, 3, 4], [2], [5, 2], [3]]
IDS = [2, 0, 3, 2, 1, 2]


def data_set(folder):
    """Two shards of three rows, written as two row groups each."""
    shards = []
    for number in (0, 1):
        rows = slice(3 * number, 3 * number + 3)
        table = pa.table({"label": pa.array([0, 1, 0], pa.uint8()), "tags": pa.array(TAGS[rows], pa.list_(pa.int32())), "C": IDS[rows]})
        pq.write_table(table, folder / f"{number}.parquet", row_group_size=2)
        shards.append(Shard(path=f"{number}.parquet", rows=3, positives=1, sha256=file_sha256(f"{folder}/{number}.parquet")))
    one = {"kind": "token", "cardinality": 6, "missing_share": 0.0, "rare_share": 0.0}
    features = (CategoricalFeature(name="tags", pooling="mean", **one), CategoricalFeature(name="C", **one))
    split = Split(rows=6, positives=2, shards=tuple(shards))
    save_manifest(str(folder), Manifest(dataset="own", dense=(), categorical=features, splits={"test": split}))
    return SimpleNamespace(config=Config(), metrics={"data": str(folder), "split": "test"}, path="run")


def groups(folder, feature, values):
    run = data_set(folder)
    order = order_name(load_manifest(str(folder)).split("test").shards)
    found = groups_of(column_of_test(run, feature, order), values)
    return {name: np.flatnonzero(rows).tolist() for name, rows in found}


def test_a_multi_valued_feature_has_a_row_in_the_slice_of_each_of_its_ids(tmp_path):
    # By hand: ids 2 and 3 are in three rows each, 0, 4 and 5 in one; id 3 stands twice in row 2 and counts once.
    assert groups(tmp_path, "tags", 2) == {"id 2": [0, 3, 4], "id 3": [0, 2, 5], "all others": [1]}
    assert groups(tmp_path, "tags", 9)["id 0 (missing)"] == [1]
    assert "all others" not in groups(tmp_path, "tags", 9)


def test_a_feature_with_one_id_a_row_parts_the_rows(tmp_path):
    assert groups(tmp_path, "C", 1) == {"id 2": [0, 3, 5], "all others": [1, 2, 4]}
    assert sorted(row for rows in groups(tmp_path, "C", 3).values() for row in rows) == list(range(6))


def test_rows_that_the_run_was_not_tested_on_are_refused(tmp_path):
    """As many rows as before, in a data set that was made anew in place; and a shard that is not the manifest's."""
    run = data_set(tmp_path)
    order = order_name(load_manifest(str(tmp_path)).split("test").shards)
    with pytest.raises(UserError, match=r"--slice C: .*'test'"):
        column_of_test(run, "C", order[::-1])
    (tmp_path / "1.parquet").write_bytes((tmp_path / "0.parquet").read_bytes())
    with pytest.raises(UserError, match=r"1\.parquet: .*sha256"):
        column_of_test(run, "C", order)
