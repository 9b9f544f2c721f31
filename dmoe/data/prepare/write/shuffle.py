"""A global shuffle of the train split while it is written.

Rows are ordered by a 64-bit hash of (seed, row number), and each shard holds an equal range of hashes, so the position of a row does not
depend on other rows. While ranges are written (dmoe.data.prepare.write.shards), the train rows of each range go to one file, sorted by
hash. Then each shard collects its range of hashes from all files, sorts and writes it. A task holds at most two copies of the rows of a
range or of a shard.

Shapes: N rows.
"""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dmoe.data.parquet import write_shard
from dmoe.data.prepare.engines.engine import Engine, Threads, run_tasks
from dmoe.data.prepare.split.split_rules import row_hashes
from dmoe.data.progress import Progress
from dmoe.json_text import format_json
from dmoe.storage.paths import write_atomic, write_text

ORDER = "@order"
"""The column of the sorted files that holds the hashes. Shards do not have it."""
STREAM = int.from_bytes(b"shuffled", "little")
"""Changes the seed. With the seed of the split, the hashes of all train rows would be below the share of train."""
COPIES = 2
"""Most copies of the rows of a range or shard that a task holds."""


def order_of(seed: int, first: int, rows: int) -> NDArray[np.uint64]:
    """The hashes [rows] that order the rows first, first + 1, ... of a log: row_hashes(seed xor STREAM). No two are equal."""
    return row_hashes((seed % 2**64) ^ STREAM, first, rows)


class SortedFile:
    """Collects the rows of a range; `close` writes them, sorted by ORDER, as an Arrow file that can be memory-mapped. Has the methods of
    ShardFile."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._tables: list[pa.Table] = []

    def write(self, table: pa.Table, row_group_rows: int) -> None:
        self._tables.append(table)

    def close(self) -> str | None:
        """None if there are no rows. The file needs no checksum, since it is never published."""
        if not self._tables:
            return None
        table = pa.concat_tables(self._tables).combine_chunks()
        self._tables = []
        table = table.take(pa.array(np.argsort(table[ORDER].to_numpy())))
        (batch,) = table.combine_chunks().to_batches()
        with write_atomic(self.path, sync=False) as file, pa.ipc.new_file(file, batch.schema) as writer:
            writer.write_batch(batch)
        return "sorted"

    def __enter__(self) -> "SortedFile":
        return self

    def __exit__(self, *error: Any) -> None:
        self._tables = []


@dataclass(frozen=True)
class Gathering:
    """Arguments of the tasks that write shuffled shards.

    Attributes:
        files: the sorted files.
        folder: receives the shards.
        shards: number of shards.
    """

    files: list[str]
    folder: str
    shards: int
    row_group_rows: int
    many: frozenset[str]

    def first(self, number: int) -> int:
        """The lowest hash of a shard."""
        return -(-(number << 64) // self.shards)


def _slice(table: pa.Table, low: int, high: int) -> pa.Table:
    """The rows of a sorted table whose hashes are low .. high - 1."""
    order_N = table[ORDER].to_numpy()
    begin = int(np.searchsorted(order_N, np.uint64(low)))
    return table.slice(begin, int(np.searchsorted(order_N, np.uint64(high - 1), side="right")) - begin)


def _gather(shared: Gathering, number: int) -> Iterator[tuple[str, int, int, str]]:
    """Writes a shard, unless its note exists: (path, rows, positives, sha256)."""
    path = os.path.join(shared.folder, f"shuffled-{number:06d}.parquet")
    note = path.removesuffix(".parquet") + ".json"
    if not os.path.exists(note):
        with ExitStack() as maps:
            slices = []
            for file in shared.files:
                mapped = pa.ipc.open_file(maps.enter_context(pa.memory_map(file)))
                slices.append(_slice(pa.Table.from_batches([mapped.get_batch(0)]), shared.first(number), shared.first(number + 1)))
            table = pa.concat_tables(slices).combine_chunks()
            del slices
        table = table.take(pa.array(np.argsort(table[ORDER].to_numpy()))).drop_columns([ORDER])
        sha256 = write_shard(path, table, shared.row_group_rows, shared.many) if table.num_rows else ""
        write_text(note, format_json([table.num_rows, int(np.sum(table["label"].to_numpy(), dtype=np.int64)), sha256]), sync=False)
    with open(note) as read:
        yield (path, *json.load(read))


def gather_shards(
    files: Sequence[tuple[str, int, int, str]], folder: str, rows_per_shard: int, row_group_rows: int, many: frozenset[str], engine: Engine
) -> list[tuple[str, int, int, str]]:
    """Writes the shuffled shards: (path, rows, positives, sha256) of each one with rows. The sorted files are given in the same form. A
    shard has about `rows_per_shard` rows, since it holds an equal range of hashes."""
    rows = sum(one[1] for one in files)
    shared = Gathering([one[0] for one in files], folder, -(-rows // rows_per_shard), row_group_rows, many)
    progress = Progress("shuffle", total_rows=rows)
    shards = list(run_tasks(engine, _gather, shared, range(shared.shards), lambda one: progress.update(rows=one[1])))
    progress.close()
    return [one for one in shards if one[1]]


def within(engine: Engine, rows: int, row_bytes: int, limit: int) -> Engine:
    """The engine; or, if its threads would need more than `limit` bytes for their rows, an engine with fewer threads."""
    fitting = max(limit // (rows * row_bytes * COPIES), 1)
    return engine if engine.far or fitting >= engine.workers else Threads(fitting)
