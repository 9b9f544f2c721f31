"""The reader refuses what the manifest did not promise: one line that names file, feature and row."""

import hashlib
import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from dmoe.data.dataset.batch import Batch
from dmoe.data.dataset.manifest import load_manifest
from dmoe.data.dataset.reading import split_columns
from dmoe.data.dataset.reading.reader import Reader
from dmoe.errors import UserError
from dmoe.testing.small_data import make_data_set
from tests.s3_server import s3_server

SHARD = "train/part-00001.parquet"


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    make_data_set(folder, {"train": 1000, "validation": 100, "test": 100})
    return folder


@pytest.fixture
def broken(sound, tmp_path):
    """`broken(change)`: the data set after `change(table) -> table` of one shard, with a manifest that knows no better."""

    def make(change):
        folder = tmp_path / "data"
        shutil.copytree(sound, folder)
        pq.write_table(change(pq.read_table(folder / SHARD)), folder / SHARD, row_group_size=256)
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["splits"]["train"]["shards"][1]["sha256"] = hashlib.sha256((folder / SHARD).read_bytes()).hexdigest()
        (folder / "manifest.json").write_text(json.dumps(manifest))
        return str(folder)

    return make


def batches(folder, prefetch=0):
    manifest = load_manifest(folder)
    names = [feature.name for feature in manifest.dense]
    return Reader(folder, manifest, "train", manifest.categorical, names, prefetch=prefetch).batches(64, 0, 1)


def read(folder, prefetch=0):
    return list(batches(folder, prefetch))


def changed(name, row, value, dtype=None):
    """One value of a column is another."""

    def change(table):
        column = table.column(name)
        values = column.to_pylist()
        values[row] = value
        return table.set_column(table.column_names.index(name), name, pa.array(values, dtype or column.type))

    return change


def cast(name, dtype):
    return lambda table: table.set_column(table.column_names.index(name), name, table.column(name).cast(dtype))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (changed("I2", 300, float("nan")), ["I2: nan at row 300", SHARD, "finite"]),
        (changed("I1", 3, float("-inf")), ["I1: -inf at row 3 ", SHARD]),
        (changed("I1", 7, None), ["I1: no value at row 7 ", SHARD]),
        (changed("C2", 499, None), ["C2: no value at row 499 ", SHARD]),
        (changed("label", 260, 2), ["label: 2 at row 260", SHARD, "0 or 1"]),
        (changed("C1", 10, 40), ["C1: id 40 at row 10 ", SHARD, "40 ids (0..39)"]),
        (changed("C1", 257, -1), ["C1: id -1 at row 257", SHARD]),
        (cast("C3", pa.int64()), ["column 'C3' is int64, expected int32", SHARD]),
        (cast("I3", pa.float64()), ["column 'I3' is double, expected float", SHARD]),
        (cast("label", pa.float32()), ["column 'label' is float, expected uint8", SHARD]),
        (cast("C1", pa.string()), ["column 'C1' is string", SHARD]),
        (lambda table: table.drop_columns(["C4"]), ["no column 'C4'", SHARD]),
        (lambda table: table.slice(1), ["has 499 rows, the manifest says 500", SHARD]),
        (
            lambda table: table.append_column("C5", table.column("C4")).rename_columns([*table.column_names, "C4"]),
            ["two columns 'C4'", SHARD],
        ),
    ],
)
@pytest.mark.parametrize("prefetch", [0, 2])
def test_a_shard_that_is_not_what_the_manifest_says(broken, change, words, prefetch):
    with pytest.raises(UserError) as error:
        read(broken(change), prefetch)
    assert all(word in str(error.value) for word in words), error.value
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "text"])
def test_a_file_that_is_no_parquet(sound, tmp_path, damage):
    folder = tmp_path / "data"
    shutil.copytree(sound, folder)
    content = (folder / SHARD).read_bytes()
    (folder / SHARD).unlink()
    if damage != "missing":
        (folder / SHARD).write_bytes({"empty": b"", "truncated": content[: len(content) // 2], "text": b"label,I1\n0,1\n"}[damage])
    with pytest.raises(UserError, match=r"part-00001\.parquet"):
        read(str(folder))


def test_flipped_bytes_are_seen_where_pages_have_checksums(sound, tmp_path):
    folder = tmp_path / "data"
    shutil.copytree(sound, folder)
    pq.write_table(pq.read_table(folder / SHARD), folder / SHARD, row_group_size=256, compression="none", write_page_checksum=True)
    content = bytearray((folder / SHARD).read_bytes())
    content[len(content) // 3] ^= 4
    (folder / SHARD).write_bytes(content)
    with pytest.raises(UserError, match=r"part-00001\.parquet: .*(CRC|crc|checksum)"):
        read(str(folder))


def in_place(path, content):
    """As `cp` over a file does."""
    with path.open("r+b") as file:
        file.write(content)
        file.truncate()


def by_rename(path, content):
    """As `rsync` and `mv` do."""
    path.with_suffix(".new").write_bytes(content)
    path.with_suffix(".new").replace(path)


@pytest.mark.parametrize("put", [in_place, by_rename])
def test_a_shard_that_is_swapped_within_an_epoch_is_refused_by_name(broken, monkeypatch, put):
    monkeypatch.setattr(split_columns, "OPEN_FILES", 1)
    folder = Path(broken(lambda table: table))
    other = table_bytes(changed("I1", 3, 9.0)(pq.read_table(folder / SHARD)))
    sound = (folder / SHARD).read_bytes()
    going_on = batches(str(folder))
    next(going_on)
    put(folder / SHARD, other)
    with pytest.raises(UserError, match=f"{SHARD}: .*sha256"):
        list(going_on)
    put(folder / SHARD, sound)
    expected = [batch.dense_BD for batch in batches(str(folder))]
    # The same bytes, copied once more, are the same shard.
    going_on = batches(str(folder))
    first = next(going_on)
    put(folder / SHARD, sound)
    assert all(map(torch.equal, expected, [first.dense_BD, *(batch.dense_BD for batch in going_on)]))


def table_bytes(table):
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, row_group_size=256)
    return buffer.getvalue().to_pybytes()


def test_the_order_has_a_name_that_follows_what_it_depends_on(sound):
    manifest = load_manifest(str(sound))

    def order(**settings):
        return Reader(str(sound), manifest, "train", manifest.categorical, [], **settings).order

    assert order(shuffle="window", seed=1) == order(shuffle="window", seed=1, prefetch=0)
    different = [order(), order(shuffle="row_groups"), order(shuffle="window"), order(shuffle="window", seed=1)]
    different.append(order(shuffle="window", window_row_groups=3))
    assert len(set(different)) == len(different)
    assert order(seed=1) == order(seed=2), "without a shuffle, the seed changes nothing"


def test_a_dropped_iterator_ends_its_thread(sound):
    manifest, before = load_manifest(str(sound)), set(threading.enumerate())
    batches = Reader(str(sound), manifest, "train", manifest.categorical, ["I1"], prefetch=2).batches(8, 0, 1)
    next(batches)
    assert "reader" in [thread.name for thread in set(threading.enumerate()) - before]
    batches.close()
    assert "reader" not in [thread.name for thread in set(threading.enumerate()) - before]


@pytest.mark.parametrize("prefetch", [0, 2])
def test_batches_are_pinned_where_asked_and_by_the_thread_that_reads_ahead(sound, monkeypatch, prefetch):
    """Page-locked memory needs a GPU; here what asks for it is watched."""
    asked_by, manifest = [], load_manifest(str(sound))
    monkeypatch.setattr(Batch, "pin_memory", lambda batch: asked_by.append(threading.current_thread().name) or batch)
    for pin in (False, True):
        reader = Reader(str(sound), manifest, "train", manifest.categorical, ["I1"], prefetch=prefetch, pin_memory=pin)
        assert len(list(reader.batches(256, 0, 1))) == 4
        assert asked_by == ["reader" if prefetch else threading.current_thread().name] * 4 * pin


@pytest.mark.skipif(not torch.cuda.is_available(), reason="page-locked memory needs a GPU")
def test_pinned_batches_lie_in_page_locked_memory(sound):
    manifest = load_manifest(str(sound))
    batch = next(Reader(str(sound), manifest, "train", manifest.categorical, ["I1"], pin_memory=True).batches(256, 0, 1))
    assert all(part.is_pinned() for part in (batch.dense_BD, batch.label_B, batch.weight_B, batch.sparse.values(), batch.sparse.lengths()))


def test_a_data_set_on_s3_gives_the_batches_that_it_gives_here(sound, monkeypatch):
    manifest = load_manifest(str(sound))

    def batches(folder):
        reader = Reader(folder, load_manifest(folder), "train", manifest.categorical, ["I1", "I2"], shuffle="window", seed=3)
        return [(batch.dense_BD.tolist(), batch.sparse.values().tolist(), batch.label_B.tolist()) for batch in reader.batches(96, 1, 2)]

    with s3_server(monkeypatch) as client:
        for path in sound.rglob("*"):
            if path.is_file():
                client.put_object(Bucket="logs", Key=f"data/{path.relative_to(sound)}", Body=path.read_bytes())
        assert batches("s3://logs/data") == batches(str(sound))
        client.delete_object(Bucket="logs", Key=f"data/{SHARD}")
        with pytest.raises(UserError, match=f"s3://logs/data/{SHARD}: missing"):
            batches("s3://logs/data")


def test_padding_has_no_weight_and_no_ids(sound):
    manifest = load_manifest(str(sound))
    reader = Reader(str(sound), manifest, "train", manifest.categorical, ["I1"], prefetch=0)
    last = [list(reader.batches(300, rank, 3))[-1] for rank in range(3)]
    assert [int(batch.weight_B.sum()) for batch in last] == [34, 34, 32]
    assert len({len(batch.label_B) for batch in last}) == 1
    assert last[2].sparse.lengths().view(4, 34)[:, 32:].sum() == 0
    assert np.isfinite(last[2].dense_BD.numpy()).all()
