"""The two passes of the global shuffle of one split; see shuffle."""

import json
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dmoe.data.criteo import LABEL
from dmoe.data.dataset.files import RowGroup, read_row_group, row_groups
from dmoe.data.dataset.manifest import Manifest, Split
from dmoe.data.manifest_parts import made_split
from dmoe.data.parquet import many_values, write_shard
from dmoe.data.progress import Progress
from dmoe.json_text import format_json
from dmoe.paths import write_atomic, write_text

KEY = "__key"
COPIES = 4
"""Copies of a chunk's or a shard's rows that a worker holds at most: as read, joined, sorted, and what the writer buffers."""

Keys = Callable[[int, int], NDArray[np.uint64]]


@dataclass(frozen=True)
class Shuffled:
    """A split's finished shards: where they lie now, and what the manifest will say of them."""

    files: list[str]
    split: Split


def shuffle_split(
    data: str,
    manifest: Manifest,
    name: str,
    folder: str,
    keys: Keys,
    rows_per_shard: int,
    row_group_rows: int,
    memory_limit: int,
    workers: int,
) -> Shuffled:
    """Shuffles one split into `folder`; what is finished there is not done again.

    Args:
        keys: (first row, rows) -> [rows] uint64, by which rows are sorted.
        rows_per_shard: a shard has about as many; exactly, those whose keys lie in its equal part of all keys.
    """
    split = manifest.splits[name]
    shards = -(-split.rows // rows_per_shard)
    groups = row_groups(data, split.shards)
    if not groups:
        return Shuffled([], split.model_copy(update={"shards": ()}))
    first = read_row_group(data, split.shards, groups[0])
    row_bytes = max(first.nbytes // first.num_rows, 1) + 8
    chunk_rows = max(memory_limit // (workers * row_bytes * COPIES), 1)
    # Chunks of another size are other files: their folder says which.
    chunks = os.path.join(folder, "chunks", str(chunk_rows))
    os.makedirs(chunks, exist_ok=True)
    paths = _scatter(data, split, groups, chunks, chunk_rows, keys, shards, workers, name)
    fitting = max(min(workers, memory_limit // (rows_per_shard * row_bytes * COPIES)), 1)
    many = many_values({feature.name: feature.cardinality for feature in manifest.categorical})
    found = _gather(paths, folder, shards, row_group_rows, many, fitting, name, split.rows)
    written = [one for one in found if one[1]]
    return Shuffled([path for path, *_ in written], made_split(name, written, split.labelled))


def _chunks(groups: list[RowGroup], chunk_rows: int) -> list[list[RowGroup]]:
    """Successive row groups of at most `chunk_rows` rows together, one group at least."""
    made: list[list[RowGroup]] = []
    rows = 0
    for group in groups:
        if not made or rows + group.rows > chunk_rows:
            made.append([])
            rows = 0
        made[-1].append(group)
        rows += group.rows
    return made


def _scatter(
    data: str, split: Split, groups: list[RowGroup], folder: str, chunk_rows: int, keys: Keys, shards: int, workers: int, name: str
) -> list[str]:
    """Pass 1: a file a chunk, with a record batch for every shard."""
    import pyarrow as pa

    progress = Progress(f"shuffle {name}, pass 1 of 2", total_rows=split.rows)

    def work(number: int, chunk: list[RowGroup]) -> int:
        path, rows = os.path.join(folder, f"{number:06d}.arrow"), sum(group.rows for group in chunk)
        if os.path.exists(path):
            return rows
        table = pa.concat_tables([read_row_group(data, split.shards, group) for group in chunk])
        key = keys(chunk[0].first, rows)
        order = np.argsort(key)
        (batch,) = table.append_column(KEY, pa.array(key)).combine_chunks().take(pa.array(order)).combine_chunks().to_batches()
        edges = np.searchsorted(_shard_of(key[order], shards), np.arange(shards + 1))
        with write_atomic(path, sync=False) as file:
            options = pa.ipc.IpcWriteOptions(compression="lz4")
            with pa.ipc.new_file(file, batch.schema, options=options) as writer:
                for begin, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
                    writer.write_batch(batch.slice(begin, end - begin))
        return rows

    chunks = _chunks(groups, chunk_rows)
    with ThreadPoolExecutor(workers) as pool:
        for rows in pool.map(work, range(len(chunks)), chunks):
            progress.update(rows=rows)
    progress.close()
    return [os.path.join(folder, f"{number:06d}.arrow") for number in range(len(chunks))]


def _shard_of(key: NDArray[np.uint64], shards: int) -> NDArray[np.uint64]:
    """Equal ranges of keys; grows with the key."""
    return ((key >> np.uint64(32)) * np.uint64(shards)) >> np.uint64(32)


def _gather(
    chunks: list[str], folder: str, shards: int, row_group_rows: int, many: frozenset[str], workers: int, name: str, total: int
) -> list[tuple[str, int, int, str]]:
    """Pass 2: the shards as (file, rows, positives, sha256)."""
    import pyarrow as pa

    progress = Progress(f"shuffle {name}, pass 2 of 2", total_rows=total)
    local = threading.local()

    def work(number: int) -> tuple[str, int, int, str]:
        path = os.path.join(folder, f"{number:06d}.parquet")
        note = os.path.join(folder, f"{number:06d}.json")
        if os.path.exists(note):
            with open(note) as file:
                rows, positives, digest = json.load(file)
            return path, rows, positives, digest
        if not hasattr(local, "readers"):
            # A reader is not made for several threads; its footer is worth keeping.
            local.readers = [pa.ipc.open_file(pa.memory_map(chunk)) for chunk in chunks]
        table = pa.Table.from_batches([reader.get_batch(number) for reader in local.readers]).combine_chunks()
        order = np.argsort(table[KEY].to_numpy())
        table = table.drop_columns([KEY]).take(pa.array(order))
        positives = int(np.count_nonzero(table[LABEL].to_numpy())) if LABEL in table.column_names else 0
        digest = write_shard(path, table, row_group_rows, many) if table.num_rows else ""
        write_text(note, format_json([table.num_rows, positives, digest]), sync=False)
        return path, table.num_rows, positives, digest

    found = []
    with ThreadPoolExecutor(workers) as pool:
        for one in pool.map(work, range(shards)):
            progress.update(rows=one[1])
            found.append(one)
    progress.close()
    return found
