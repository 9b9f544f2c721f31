"""`--shuffle`: the train split in a global order that is known from seed and row alone."""

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from dmoe.data.dataset.manifest import load_manifest
from dmoe.data.prepare import pipeline
from dmoe.errors import UserError
from tests.unit.data.every_schema import Days, data_of, label_of, random_splits, raw_rows, read, run
from tests.unit.data.reference import MASK, mix
from tests.unit.data.test_continue import Killed
from tests.unit.data.test_every_schema import engines
from tests.unit.data.test_negatives import is_kept

STREAM = int.from_bytes(b"shuffled", "little")


def order_of(row: int, seed: int) -> int:
    return mix((mix(seed ^ STREAM) + (row + 1) * 0x9E3779B97F4A7C15) & MASK)


def shuffled(days: Days, output: Path, **options: Any) -> Any:
    return run(days, output, **{"shuffle": True, "seed": 7, **options}).manifest


def test_the_train_split_is_a_permutation_in_the_order_of_the_hashes(days, tmp_path):
    run(days, tmp_path / "a", seed=7)
    made = shuffled(days, tmp_path / "b")
    train = [row for row, split in enumerate(random_splits(1500, 7)) if split == 0]
    order = sorted(range(len(train)), key=lambda place: order_of(train[place], 7))
    assert read(tmp_path / "b", "train").equals(read(tmp_path / "a", "train").take(order))
    for name in ("validation", "test"):
        assert read(tmp_path / "b", name).equals(read(tmp_path / "a", name))
    old = load_manifest(str(tmp_path / "a"))
    assert (made.categorical, made.dense, made.weighted_rate) == (old.categorical, old.dense, old.weighted_rate)
    assert (made.splits["train"].rows, made.splits["train"].positives) == (len(train), old.splits["train"].positives)
    count = -(-len(train) // 400)
    assert len(made.splits["train"].shards) == count
    for number, shard in enumerate(made.splits["train"].shards):
        path = tmp_path / "b" / shard.path
        assert hashlib.sha256(path.read_bytes()).hexdigest() == shard.sha256
        assert pq.ParquetFile(path).metadata.row_group(0).num_rows == 128
        assert shard.rows == sum(order_of(row, 7) * count >> 64 == number for row in train)
    assert made.made_by["shuffle"] is True
    assert not (tmp_path / "b" / ".work").exists()


def test_negatives_that_are_left_out_stay_so(days, tmp_path):
    labels = [label_of(row) for row in raw_rows(days)]
    shuffled(days, tmp_path / "a", negatives=0.2)
    kept = [row for row, split in enumerate(random_splits(1500, 7)) if split == 0 and is_kept(labels[row], row, "0.2", 7)]
    expected = [labels[row] for row in sorted(kept, key=lambda row: order_of(row, 7))]
    assert read(tmp_path / "a", "train")["label"].to_pylist() == expected


def test_bytes_do_not_depend_on_engine_blocks_workers_or_memory(days, tmp_path, monkeypatch):
    shuffled(days, tmp_path / "a")
    expected = data_of(tmp_path / "a")
    monkeypatch.setattr(pipeline, "open_engine", engines)
    for number, options in enumerate(
        [{"block_bytes": 3000, "workers": 3}, {"memory_limit": 1, "workers": 2}, {"engine": "ray", "workers": 2}]
    ):
        shuffled(days, tmp_path / str(number), **options)
        assert data_of(tmp_path / str(number)) == expected, options
    assert shuffled(days, tmp_path / "seed", seed=8).splits["train"].shards != load_manifest(str(tmp_path / "a")).splits["train"].shards


def test_a_run_that_is_killed_again_and_again_ends_in_the_same_bytes(days, tmp_path, monkeypatch):
    shuffled(days, tmp_path / "whole")
    rename, left, kills = os.replace, [0], 0

    def counting(source: Any, target: Any) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise Killed
        rename(source, target)

    monkeypatch.setattr(os, "replace", counting)
    while True:
        # Every life gets a little farther.
        left[0] = 10 + 2 * kills
        try:
            shuffled(days, tmp_path / "b")
            break
        except Killed:
            kills += 1
    assert kills >= 5
    assert data_of(tmp_path / "b") == data_of(tmp_path / "whole")


def test_the_order_is_global():
    """Every tenth of the order comes from all tenths of the log alike, and neighbours were far apart."""
    numbers = np.array(sorted(range(3000), key=lambda row: order_of(row, 1)))
    table = np.histogram2d(np.arange(3000), numbers, bins=10, range=[[0, 3000], [0, 3000]])[0]
    # 81 degrees of freedom: above 140 with probability 5e-5.
    assert ((table - 30) ** 2 / 30).sum() < 140
    assert abs(np.abs(np.diff(numbers)).mean() - 1000) < 60


def test_data_to_score_are_not_shuffled(days, tmp_path):
    with pytest.raises(UserError, match="--shuffle"):
        run(days, tmp_path / "a", shuffle=True, scoring=True, ids="hash", hash_size="50")
