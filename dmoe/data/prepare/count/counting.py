"""Counts tokens in bounded memory.

Counts are added up in memory. Counts that outgrow the limit are spilled to disk, ordered by hash, and at the end one range of hashes
("cut") at a time is added up. Threads share one set of counts. Each task of a far engine counts a batch of parts and spills its counts.
"""

import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count as numbers
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dmoe.data.prepare.count.count_tables import new_counts
from dmoe.data.prepare.engines.engine import Engine, run_tasks
from dmoe.data.prepare.tokens.token_columns import Tokens
from dmoe.data.prepare.tokens.token_ids import hashes
from dmoe.data.progress import Progress
from dmoe.storage.paths import write_atomic

CUTS_LOG2 = 7
"""Spilled counts are divided into 2^7 cuts by the highest 7 bits of the hash."""
SMALL_TABLE = 1 << 18
MOST_BATCHES = 1024
"""Most batches of a far engine. Each cut reads a slice of the counts of every batch."""
ENTRY_BYTES = 64
"""Approximate memory of one spilled entry while it is added up."""


@dataclass(frozen=True)
class Run:
    """Spilled counts of a feature: an Arrow file with one batch, ordered by cut. Cut i is rows edges[i] .. edges[i + 1] - 1."""

    path: str
    edges: tuple[int, ...]

    def read(self, first: int, end: int) -> pa.RecordBatch:
        """The counts of the cuts first .. end - 1."""
        with pa.memory_map(self.path) as file:
            (batch,) = pa.ipc.open_stream(file)
            return batch.slice(self.edges[first], self.edges[end] - self.edges[first])


class Counting:
    """Counts the tokens of many features within a memory limit. Thread-safe: each feature has a lock."""

    def __init__(self, types: dict[str, pa.DataType], limit: int, folder: str, name: str = "") -> None:
        self.types, self.limit, self.folder, self.name = types, limit, folder, name
        self.counts = {feature: new_counts(kind) for feature, kind in types.items()}
        self.locks = {feature: threading.Lock() for feature in types}
        self.runs: dict[str, list[Run]] = {feature: [] for feature in types}
        self.number, self.spilling = numbers(), threading.Lock()

    @property
    def size(self) -> int:
        return sum(one.size for one in self.counts.values())

    def add(self, feature: str, tokens: pa.Array, counts: NDArray[np.int64]) -> None:
        with self.locks[feature]:
            more = self.counts[feature].room(len(tokens))
            if more and self.size + more > self.limit:
                self._spill(feature)
            self.counts[feature].add(tokens, counts)

    def keep_within(self) -> None:
        """Spills the largest counts until all counts together are within the limit."""
        if self.size <= self.limit:
            return
        with self.spilling:
            while self.size > self.limit:
                largest = max(self.counts, key=lambda feature: self.counts[feature].size if self.counts[feature].used else 0)
                # Empty tables take memory too, and cannot be spilled.
                if not self.counts[largest].used or self.counts[largest].size <= SMALL_TABLE:
                    return
                with self.locks[largest]:
                    self._spill(largest)

    def spill_all(self) -> dict[str, list[Run]]:
        for feature in self.types:
            self._spill(feature)
        return self.runs

    def _spill(self, feature: str) -> None:
        """Writes the counts of a feature to disk. The caller holds the feature's lock."""
        table = self.counts[feature].table()
        self.counts[feature] = new_counts(self.types[feature])
        tokens = table["token"].combine_chunks() if len(table) else pa.array([], self.types[feature])
        cut = (hashes(tokens) >> np.uint64(64 - CUTS_LOG2)).astype(np.uint8)
        order = np.argsort(cut, kind="stable")
        edges = np.searchsorted(cut[order], np.arange((1 << CUTS_LOG2) + 1))
        rows = pa.RecordBatch.from_arrays([tokens.take(pa.array(order)), pa.array(table["count"].to_numpy()[order])], ["token", "count"])
        os.makedirs(self.folder, exist_ok=True)
        path = os.path.join(self.folder, f"{self.name}{next(self.number)}.counts")
        with write_atomic(path, sync=False) as file, pa.ipc.new_stream(file, rows.schema) as writer:
            writer.write_batch(rows)
        self.runs[feature].append(Run(path, tuple(edges.tolist())))


def count(columns: Tokens, least: dict[str, int], limit: int, engine: Engine, folder: str, rows_a_batch: int) -> dict[str, pa.Table]:
    """For each feature a table (token, count) of the tokens that occur at least `least` times in the train split, in no order.

    Args:
        limit: approximate bytes for all counts; with a far engine, for those of each task.
        folder: for spilled counts.
        rows_a_batch: least rows of the batch of parts that a task of a far engine counts.
    """
    progress = Progress("count", total_rows=sum(columns.rows_of))
    counting = Counting(columns.types, limit, folder)
    if engine.far:
        shared, items = (columns, limit // 2, folder), batches(columns.rows_of, rows_a_batch)
        for runs, _ in run_tasks(engine, _count_far, shared, items, lambda one: progress.update(rows=one[1])):
            for feature, found in runs.items():
                counting.runs[feature] += found
    else:
        parts = range(len(columns.rows_of))
        for _ in run_tasks(engine, _count_part, (columns, counting), parts, lambda rows: progress.update(rows=rows)):
            pass
    progress.close()
    kept = {}
    for feature in columns.types:
        if counting.runs[feature]:
            if not engine.far:
                counting._spill(feature)
        else:
            kept[feature] = _frequent(counting.counts[feature].table(), least[feature])
    spilled = {feature: runs for feature, runs in counting.runs.items() if runs}
    return kept | _added_up(spilled, columns.types, least, limit, engine)


def batches(rows: list[int], least: int, most: int = MOST_BATCHES) -> list[tuple[int, int]]:
    """Groups consecutive parts with these numbers of rows into at most `most` batches of at least `least` rows: (first part, end)."""
    wanted = max(least, -(-sum(rows) // most))
    cuts, held = [0], 0
    for number, found in enumerate(rows):
        held += found
        if held >= wanted or number == len(rows) - 1:
            cuts.append(number + 1)
            held = 0
    return list(pairwise(cuts))


def _count_part(shared: tuple[Tokens, Counting], number: int) -> Iterator[int]:
    columns, counting = shared
    for feature, tokens, counts in columns.train_counts(number):
        counting.add(feature, tokens, counts)
    counting.keep_within()
    yield columns.rows_of[number]


def _count_far(shared: tuple[Tokens, int, str], batch: tuple[int, int]) -> Iterator[tuple[dict[str, list[Run]], int]]:
    columns, limit, folder = shared
    counting = Counting(columns.types, limit, folder, f"{batch[0]:06d}-{batch[1]:06d}-")
    for number in range(*batch):
        for _ in _count_part((columns, counting), number):
            pass
    yield counting.spill_all(), sum(columns.rows_of[slice(*batch)])


def _added_up(
    spilled: dict[str, list[Run]], types: dict[str, pa.DataType], least: dict[str, int], limit: int, engine: Engine
) -> dict[str, pa.Table]:
    """Adds up spilled counts. Each task takes so many cuts that all tasks that run at a time stay within the limit."""
    items, entries = [], 0
    for feature, runs in spilled.items():
        rows = sum(run.edges[-1] for run in runs)
        entries += rows
        share = limit if engine.far else limit // engine.workers
        tasks = min(1 << max(-(-rows * ENTRY_BYTES // max(share, 1)) - 1, 0).bit_length(), 1 << CUTS_LOG2)
        step = (1 << CUTS_LOG2) // tasks
        items += [(feature, first, first + step) for first in range(0, 1 << CUTS_LOG2, step)]
    if not items:
        return {}
    progress = Progress("add up", total_rows=entries)
    found: dict[str, list[pa.Table]] = {feature: [] for feature in spilled}
    for feature, table, _ in run_tasks(engine, _add_up, (spilled, types, least), items, lambda one: progress.update(rows=one[2])):
        found[feature].append(table)
    progress.close()
    return {feature: pa.concat_tables(tables) for feature, tables in found.items()}


def _add_up(
    shared: tuple[dict[str, list[Run]], dict[str, pa.DataType], dict[str, int]], item: tuple[str, int, int]
) -> Iterator[tuple[str, pa.Table, int]]:
    spilled, types, least = shared
    feature, first, end = item
    sums, entries = new_counts(types[feature]), 0
    for run in spilled[feature]:
        batch = run.read(first, end)
        sums.add(batch.column("token"), batch.column("count").to_numpy())
        entries += len(batch)
    yield feature, _frequent(sums.table(), least[feature]), entries


def _frequent(table: pa.Table, least: int) -> pa.Table:
    return table.filter(pc.greater_equal(table["count"], least))
