"""Manifests and shards whose parts do not fit one another are refused, each by name."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dmoe.data.dataset.files import file_sha256, verify
from dmoe.data.dataset.manifest import load_manifest
from dmoe.data.prepare.pipeline import preprocess
from dmoe.errors import UserError
from dmoe.testing.small_data import make_data_set
from tests.log_files import criteo
from tests.unit.data.log.logs import make
from tests.unit.data.log.logs import schema as schema_of
from tests.unit.data.test_parse import GOOD

Tree = dict[str, Any]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    make_data_set(tmp_path / "d", {"train": 200, "validation": 60, "test": 60})
    return tmp_path / "d"


def edit(folder: Path, change: Callable[[Tree], Any]) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def split(tree: Tree, name: str) -> Tree:
    found: Tree = tree["splits"][name]
    return found


def add(tree: Tree, name: str, shard: Tree) -> None:
    """Lists one more shard in a split, whose counts are made to fit."""
    one = split(tree, name)
    one["shards"].append(shard)
    for what in ("rows", "positives"):
        one[what] += shard[what]


def more_positives(tree: Tree) -> None:
    shard = split(tree, "test")["shards"][0]
    split(tree, "test")["positives"] += shard["rows"] + 1 - shard["positives"]
    shard["positives"] = shard["rows"] + 1


def shared_rows(tree: Tree) -> None:
    """The test split gets copies of the train split's shards, under names of its own."""
    for number, shard in enumerate(split(tree, "train")["shards"]):
        add(tree, "test", shard | {"path": f"test/copy-{number}.parquet"})


CONTRADICTIONS: dict[str, tuple[Callable[[Tree], Any], list[str]]] = {
    "more positives than rows": (more_positives, ["splits.test.shards.0", "test/part-00000.parquet", "31 positives"]),
    "a split's rows": (lambda t: split(t, "test").update(rows=61), ["splits.test", "rows is 61"]),
    "a split's positives": (lambda t: split(t, "test").update(positives=0), ["splits.test", "positives is 0"]),
    "positives without labels": (lambda t: split(t, "test").update(labelled=False), ["splits.test", "labelled"]),
    "a shard twice in a split": (
        lambda t: add(t, "train", split(t, "train")["shards"][0]),
        ["train/part-00000.parquet", "twice, in 'train' and in 'train'"],
    ),
    "a shard in two splits": (
        lambda t: add(t, "test", split(t, "train")["shards"][0]),
        ["train/part-00000.parquet", "twice, in 'train' and in 'test'"],
    ),
    "a shard by two names": (
        lambda t: add(t, "test", split(t, "train")["shards"][0] | {"path": "./train//part-00000.parquet"}),
        ["part-00000.parquet", "twice"],
    ),
    "test rows that are train rows": (shared_rows, ["'test' holds rows of 'train'", "test/copy-0.parquet", "sha256"]),
    "shares above 1": (
        lambda t: t["categorical"][1].update(missing_share=0.6, rare_share=0.6),
        ["feature 'C2'", "missing_share and rare_share"],
    ),
    "several ids without pooling": (lambda t: t["categorical"][2].update(mean_ids=2.5), ["feature 'C3'", "mean_ids is 2.5"]),
    "a weighted rate without weights": (lambda t: t.update(weighted_rate=0.5), ["weighted_rate"]),
    "a version that is true": (lambda t: t.update(version=True), ["version True"]),
    "a version that is 1.0": (lambda t: t.update(version=1.0), ["version 1.0"]),
    "rows that are true": (lambda t: split(t, "test")["shards"][0].update(rows=True), ["splits.test.shards.0.rows"]),
    "a digest that is none": (lambda t: t["categorical"][0]["identity"].update(tokens="x"), ["categorical.0.identity.tokens"]),
    "a deviation of 0": (lambda t: t["dense"][0]["identity"].update(moments=[1.0, 0.0]), ["dense.0.identity.moments"]),
}


@pytest.mark.parametrize("what", CONTRADICTIONS)
def test_a_manifest_that_contradicts_itself_is_refused(data: Path, what: str) -> None:
    load_manifest(str(data))
    change, said = CONTRADICTIONS[what]
    edit(data, change)
    with pytest.raises(UserError) as caught:
        load_manifest(str(data))
    message = str(caught.value)
    assert message.startswith(f"{data}/manifest.json: ")
    assert "\n" not in message
    assert all(word in message for word in said), message


def test_a_few_rows_may_be_equal_by_chance(data: Path) -> None:
    few = {"path": "few.parquet", "rows": 3, "positives": 1, "sha256": "1" * 64}
    for name in ("train", "test"):
        edit(data, lambda tree, name=name: add(tree, name, few | {"path": f"{name}/few.parquet"}))  # type: ignore[misc]
    assert load_manifest(str(data)).splits["test"].rows == 63


def test_a_log_of_one_row_over_and_over_is_refused_when_it_is_prepared(tmp_path: Path) -> None:
    (tmp_path / "log.tsv").write_bytes((GOOD + b"\n") * 60)
    with pytest.raises(UserError, match=r"'test' .*'validation'"):
        preprocess(criteo([f"{tmp_path}/log.tsv"], f"{tmp_path}/d", min_count=1, workers=1, split="0.4,0.3,0.3", split_by="time"))
    (tmp_path / "log.csv").write_text("click,site\n" + "1,a\n" * 60)
    only = schema_of(label="click", time=None, weight=None, group=None, dense=[], categorical=["site"], missing=[])
    with pytest.raises(UserError, match=r"'test' .*'validation'"):
        make(tmp_path / "e", tmp_path / "log.csv", schema=only, split="0.4,0.3,0.3", split_by="time")
    assert not (tmp_path / "e" / "manifest.json").exists()


# Shards against the manifest.


def refused(data: Path, **how: Any) -> str:
    with pytest.raises(UserError) as caught:
        verify(str(data), load_manifest(str(data)), 1, **how)
    return str(caught.value)


def test_a_shard_of_another_data_set_is_refused(data: Path, tmp_path: Path) -> None:
    """It has the same columns, types, rows and ids in range."""
    make_data_set(tmp_path / "other", {"train": 200, "validation": 60, "test": 60}, seed=1)
    assert verify(str(data), load_manifest(str(data)), 2) == 6
    shutil.copy(tmp_path / "other" / "test" / "part-00001.parquet", data / "test" / "part-00001.parquet")
    assert refused(data).startswith(f"{data}/test/part-00001.parquet: its bytes are not those that were written")
    assert refused(data, splits=["test"], part=1, parts=2)
    # Another rank's share, and other splits.
    assert verify(str(data), load_manifest(str(data)), 1, ["test"], 0, 2) == 1
    assert verify(str(data), load_manifest(str(data)), 1, ["train", "validation", "train"]) == 4


@pytest.mark.parametrize("what", ["rows", "positives"])
def test_counts_that_are_not_the_shards_are_refused(data: Path, what: str) -> None:
    """The checksum is of the file as it is: only what the manifest says of it is wrong."""

    def change(tree: Tree) -> None:
        split(tree, "test")[what] += 1
        split(tree, "test")["shards"][1][what] += 1

    edit(data, change)
    message = refused(data)
    assert message.startswith(f"{data}/test/part-00001.parquet: has ")
    assert f" {what}, the manifest says " in message


def test_a_shard_without_readable_labels_is_refused(data: Path) -> None:
    path = data / "test" / "part-00000.parquet"
    table = pq.read_table(path).drop_columns("label").append_column("labels", pa.array(np.zeros(30, np.uint8)))
    pq.write_table(table, path)
    edit(data, lambda tree: split(tree, "test")["shards"][0].update(sha256=file_sha256(str(path))))
    assert refused(data).startswith(f"{path}: ")
