"""Counts that many processes make, each of a batch of parts, and add up by hash partition, through files in a folder that all see.

A batch's file holds runs: the tokens (uint32 [N]) of one feature, then their counts (int64 [N]). Its index, int64 [runs, 3 + 64], says
of each run the feature, where it begins in bytes, and where each of 64 buckets begins in it, and N. Buckets are the lowest 6 bits of the
tokens' hash, reversed, so that a hash partition of fewer bits (dmoe.data.counting.Partition) is one slice of every run.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import IO

import numpy as np
from numpy.typing import NDArray

from dmoe.data import tables
from dmoe.data.counting import SLOT_BYTES, Counts, Pass, Rows, all_features, in_passes
from dmoe.data.engine import Engine, run_tasks
from dmoe.data.progress import Progress
from dmoe.paths import write_atomic

BITS = 6
BUCKETS = 1 << BITS
REVERSED = np.array([int(f"{bucket:0{BITS}b}"[::-1], 2) for bucket in range(BUCKETS)], np.uint8)
MOST_BATCHES = 1024
"""Every partition reads a slice of each batch's file."""
ENTRIES_AT_ONCE = 1 << 16
LARGEST_PARTITION = 4 << 20
"""Entries, so that a large feature's are added up by many processes."""

Kept = tuple[NDArray[np.uint32], NDArray[np.int64]]


@dataclass(frozen=True)
class _Counting:
    rows: Rows
    folder: str
    memory_limit: int


@dataclass(frozen=True)
class _Adding:
    indexes: dict[str, NDArray[np.int64]]
    """By the path of the batch's counts."""
    folder: str
    memory_limit: int
    least: int


def batches(rows: list[int], least: int, most: int = MOST_BATCHES) -> list[tuple[int, int]]:
    """Cuts parts of so many rows each into batches of `least` rows or more, and `most` batches at most: (first part, end)."""
    wanted = max(least, -(-sum(rows) // most))
    cuts, held = [0], 0
    for number, count in enumerate(rows):
        held += count
        if held >= wanted or number == len(rows) - 1:
            cuts.append(number + 1)
            held = 0
    return list(pairwise(cuts))


def count(rows: Rows, rows_a_batch: int, least: int, memory_limit: int, engine: Engine, folder: str) -> dict[int, list[Kept]]:
    """The tokens of each feature (its place in CATEGORICAL) that the train split has at least `least` times, with their counts.

    Args:
        memory_limit: bytes for each task's tables, about.
        folder: for the counts; what is finished there is not counted again.
    """
    os.makedirs(folder, exist_ok=True)
    of_part = [part.rows for part in rows.parts]
    progress = Progress("count", total_rows=sum(of_part))
    # Half for the tables, half for what is sorted to be written.
    shared = _Counting(rows, folder, memory_limit // 2)
    items = batches(of_part, rows_a_batch)
    indexes = {}
    for path, _, index in run_tasks(engine, _count_batch, shared, items, lambda result: progress.update(rows=result[1])):
        indexes[path] = index
    progress.close()
    entries = dict.fromkeys(all_features(), 0)
    for index in indexes.values():
        for feature, *_, size in index.tolist():
            entries[feature] += size
    partitions = [(feature, *one) for feature, many in entries.items() for one in _partitions(many, shared.memory_limit)]
    progress = Progress("add up", total_rows=sum(entries.values()))
    adding = _Adding(indexes, folder, shared.memory_limit, least)
    kept: dict[int, list[Kept]] = {feature: [] for feature in all_features()}
    for feature, path, _ in run_tasks(engine, _add_up, adding, partitions, lambda result: progress.update(rows=result[2])):
        with open(path, "rb") as file:
            kept[feature].append((np.load(file, allow_pickle=False), np.load(file, allow_pickle=False)))
    progress.close()
    return kept


def _partitions(entries: int, limit: int) -> list[tuple[int, int]]:
    """So many partitions that the tables of each hold its entries, were all of them distinct."""
    most = max(min(limit // (4 * SLOT_BYTES), LARGEST_PARTITION), 1)
    bits = min((max(-(-entries // most), 1) - 1).bit_length(), BITS)
    return [(bits, part) for part in range(1 << bits)]


def _count_batch(shared: _Counting, batch: tuple[int, int]) -> Iterator[tuple[str, int, NDArray[np.int64]]]:
    """Counts parts first .. end - 1; (path of the counts, rows, index)."""
    first, end = batch
    path = os.path.join(shared.folder, f"{first:06d}-{end:06d}.counts")
    if not os.path.exists(path + ".npy"):
        with write_atomic(path, sync=False) as file:
            index = _write_batch(file, shared, range(first, end))
        with write_atomic(path + ".npy", sync=False) as file:
            np.save(file, index)
    yield path, sum(part.rows for part in shared.rows.parts[first:end]), np.load(path + ".npy", allow_pickle=False)


def _write_batch(file: IO[bytes], shared: _Counting, numbers: range) -> NDArray[np.int64]:
    index: list[list[int]] = []

    def read(run: Pass, _: int) -> None:
        for number in numbers:
            shared.rows.count(run, number)

    def keep(feature: int, one: Counts) -> None:
        tokens, counts = one.at_least(1)
        bucket = REVERSED[tables.hash_ends(tokens, BITS)]
        order = np.argsort(bucket, kind="stable")
        begins = np.searchsorted(bucket[order], np.arange(BUCKETS))
        index.append([feature, file.tell(), *begins.tolist(), len(tokens)])
        file.write(tokens[order].data)
        file.write(counts[order].data)

    in_passes(all_features(), shared.memory_limit, read, keep)
    return np.array(index, np.int64)


def _add_up(shared: _Adding, partition: tuple[int, int, int]) -> Iterator[tuple[int, str, int]]:
    """Adds up what all batches counted in a partition of a feature; (feature, path of the sums, entries added)."""
    feature, bits, part = partition
    path = os.path.join(shared.folder, f"{feature:02d}-{bits}-{part:02d}.sums")
    slices = [one for counts, index in shared.indexes.items() for one in _slices(counts, index, feature, bits, part)]
    if not os.path.exists(path):
        kept: list[Kept] = []

        def read(run: Pass, _: int) -> None:
            for one in slices:
                for entries in one.read():
                    run.add(feature, *entries)

        def keep(_: int, one: Counts) -> None:
            kept.append(one.at_least(shared.least))

        in_passes({feature: [(bits, part)]}, shared.memory_limit, read, keep)
        with write_atomic(path, sync=False) as file:
            np.save(file, np.concatenate([tokens for tokens, _ in kept]))
            np.save(file, np.concatenate([counts for _, counts in kept]))
    yield feature, path, sum(one.end - one.begin for one in slices)


@dataclass(frozen=True)
class _Slice:
    """Entries begin .. end - 1 of a run of `size` entries, which begins `offset` bytes into the file."""

    path: str
    offset: int
    begin: int
    end: int
    size: int

    def read(self) -> Iterator[Kept]:
        with open(self.path, "rb") as file:
            for begin in range(self.begin, self.end, ENTRIES_AT_ONCE):
                entries = min(ENTRIES_AT_ONCE, self.end - begin)
                file.seek(self.offset + 4 * begin)
                tokens = np.frombuffer(file.read(4 * entries), np.uint32)
                file.seek(self.offset + 4 * self.size + 8 * begin)
                yield tokens, np.frombuffer(file.read(8 * entries), np.int64)


def _slices(path: str, index: NDArray[np.int64], feature: int, bits: int, part: int) -> Iterator[_Slice]:
    first = int(REVERSED[part])
    for _, offset, *begins in index[index[:, 0] == feature].tolist():
        begin, end = begins[first], begins[first + (BUCKETS >> bits)]
        if end > begin:
            yield _Slice(path, offset, begin, end, begins[-1])
