"""The offline shuffle: a permutation of every split, in an order known from seed, split and row alone."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dmoe.data.dataset.manifest import load_manifest
from dmoe.data.preprocess import Options, preprocess
from dmoe.data.shuffle import ShuffleOptions, keys_of, shuffle
from dmoe.errors import UserError
from dmoe.testing.numbered_data import SCALE, make_numbered_data_set
from dmoe.testing.synthesize import synthesize
from tests.log_files import contents

SMALL = {"rows_per_shard": 400, "row_group_rows": 100, "workers": 2}


class Killed(BaseException):
    pass


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """The first dense column of a train row is its number."""
    folder = tmp_path_factory.mktemp("data")
    make_numbered_data_set(folder, rows=3000)
    (folder / "vocabulary" / "C1.parquet").write_bytes(b"kept as it is")
    return folder


def run(data: Path, output: Path, **changes) -> Path:
    shuffle(ShuffleOptions(str(data), str(output), **{**SMALL, **changes}))
    return output


def rows_of(folder: Path, split: str) -> list[tuple]:
    tables = [pq.read_table(folder / shard.path) for shard in load_manifest(str(folder)).split(split).shards]
    return [tuple(row.values()) for row in pa.concat_tables(tables).to_pylist()]


def reference_key(seed: int, split: str, row: int) -> int:
    def mix(x: int) -> int:
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
        return x ^ (x >> 31)

    name = int.from_bytes(hashlib.sha256(split.encode()).digest()[:8], "little")
    return mix((mix((seed % 2**64) ^ name) + (row + 1) * 0x9E3779B97F4A7C15) % 2**64)


def test_every_split_is_a_permutation_in_the_order_of_the_hashes(data, tmp_path):
    output = run(data, tmp_path / "d", seed=7)
    for split in ("train", "validation", "test"):
        before, after = rows_of(data, split), rows_of(output, split)
        order = sorted(range(len(before)), key=lambda row: reference_key(7, split, row))
        assert after == [before[row] for row in order]
    manifest, source = load_manifest(str(output)), load_manifest(str(data))
    assert manifest.schema_hash == source.schema_hash
    for name, split in manifest.splits.items():
        assert (split.rows, split.positives) == (source.splits[name].rows, source.splits[name].positives)
        for shard in split.shards:
            assert hashlib.sha256((output / shard.path).read_bytes()).hexdigest() == shard.sha256
            assert pq.ParquetFile(output / shard.path).metadata.row_group(0).num_rows <= 100
    assert (output / "vocabulary" / "C1.parquet").read_bytes() == b"kept as it is"
    assert not (output / ".work").exists()


def test_the_order_is_global(data, tmp_path):
    """Every tenth of the shuffled rows comes from all tenths of the source alike, and neighbours were far apart."""
    output = run(data, tmp_path / "d", seed=1)
    numbers = np.array([row[1] for row in rows_of(output, "train")]) * SCALE
    table = np.histogram2d(np.arange(3000), numbers, bins=10, range=[[0, 3000], [0, 3000]])[0]
    # 81 degrees of freedom: above 140 with probability 5e-5.
    assert ((table - 30) ** 2 / 30).sum() < 140
    assert abs(np.abs(np.diff(numbers)).mean() - 1000) < 60
    assert len({len(pq.read_table(output / s.path)) for s in load_manifest(str(output)).split("train").shards}) > 1


def test_bytes_do_not_depend_on_workers_or_memory(data, tmp_path):
    expected = contents(run(data, tmp_path / "a"))
    for number, changes in enumerate([{"workers": 1}, {"workers": 4, "memory_limit": 40_000}, {"memory_limit": 1, "workers": 3}]):
        assert contents(run(data, tmp_path / str(number), **changes)) == expected, changes
    assert rows_of(run(data, tmp_path / "seed", seed=1), "train") != rows_of(tmp_path / "a", "train")
    assert len({int(key) for key in keys_of(0, "train", 0, 1000)} | {int(key) for key in keys_of(0, "test", 0, 1000)}) == 2000


def test_killed_at_renames(data, tmp_path, monkeypatch):
    changes = {"workers": 1, "rows_per_shard": 1500, "memory_limit": 80_000}
    expected = contents(run(data, tmp_path / "whole", **changes))
    rename, left, kills = os.replace, [0], 0

    def counting(source, target):
        left[0] -= 1
        if left[0] == 0:
            raise Killed
        rename(source, target)

    monkeypatch.setattr(os, "replace", counting)
    while True:
        # A shard and its note are two renames, and every life copies the vocabularies anew: each gets a little farther.
        left[0] = 3 + kills
        try:
            run(data, tmp_path / "d", **changes)
            break
        except Killed:
            kills += 1
    assert kills >= 5
    assert contents(tmp_path / "d") == expected


def test_bags_are_moved_whole(data, tmp_path):
    source = tmp_path / "s"
    make_numbered_data_set(source, rows=1000)
    path = source / "manifest.json"
    manifest = json.loads(path.read_text())
    for shard in manifest["splits"]["train"]["shards"]:
        table = pq.read_table(source / shard["path"])
        bags = pa.array([[number % 5] * (number % 4) for number in range(len(table))], pa.list_(pa.int32()))
        pq.write_table(table.append_column("bag", bags), source / shard["path"], row_group_size=64)
        shard["sha256"] = hashlib.sha256((source / shard["path"]).read_bytes()).hexdigest()
    path.write_text(json.dumps(manifest))
    before, after = rows_of(source, "train"), rows_of(run(source, tmp_path / "d"), "train")
    assert sorted(map(repr, before)) == sorted(map(repr, after))
    assert before != after


def test_preprocessing_does_not_take_a_shuffled_data_set_for_its_own(tmp_path):
    synthesize(str(tmp_path / "log.tsv"), 400, seed=3, scale=0.001)
    preprocess(Options([str(tmp_path / "log.tsv")], str(tmp_path / "d")))
    output = run(tmp_path / "d", tmp_path / "shuffled")
    with pytest.raises(UserError, match="holds another data set; name another folder, or replace it with --overwrite"):
        preprocess(Options([str(tmp_path / "log.tsv")], str(output)))
    assert load_manifest(str(output)).made_by["fingerprint"] != load_manifest(str(tmp_path / "d")).made_by["fingerprint"]
    assert shuffle(ShuffleOptions(str(tmp_path / "d"), str(output), **SMALL))[1], "it is the shuffle's own finished output"


def test_mistakes(data, tmp_path):
    with pytest.raises(UserError, match="is the data set itself"):
        run(data, data)
    with pytest.raises(UserError, match="--row-group-rows is 0"):
        run(data, tmp_path / "d", row_group_rows=0)
    output = run(data, tmp_path / "d")
    with pytest.raises(UserError, match="holds another data set"):
        run(data, output, seed=5)
    make_numbered_data_set(tmp_path / "broken", rows=100)
    shard = tmp_path / "broken" / load_manifest(str(tmp_path / "broken")).splits["test"].shards[0].path
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"test/part-00000\.parquet: its bytes are not those that were written"):
        run(tmp_path / "broken", tmp_path / "e")
