"""Stage 2: the vocabulary of every categorical feature, counted over the train split in bounded memory.

Ids: 0 missing, 1 rare, then 2, 3, ... by count descending, token ascending; tokens that a later data set appends come behind.

Counts live in open-addressing hash tables. Where the tables would outgrow the limit, the table that wants to grow drops the tokens of
one half of its hash partition, which a further pass over the parts counts.
"""

import hashlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dmoe.data import tables
from dmoe.data.criteo import BUCKETS, CATEGORICAL
from dmoe.data.manifest import RARE_ID, Manifest
from dmoe.data.parse import Group
from dmoe.data.progress import Progress
from dmoe.data.stage import Part, read_groups
from dmoe.errors import UserError
from dmoe.paths import PATHS, join

SMALLEST, SPLITTABLE = 1 << 12, 1 << 18
"""Slots of a new table; a table below SPLITTABLE grows whatever the limit, since little is won by splitting it."""
SLOT_BYTES = 12
INTEGERS = len(BUCKETS)


@dataclass
class Vocabulary:
    """Tokens that have an id of their own, in the order of ids: tokens[i] (int64, counted `counts[i]` times) has id 2 + i.

    A token is the hex value of a C column's, and a bucket's number (dmoe.data.criteo.bucket) of an I column.
    """

    name: str
    tokens: NDArray[np.int64]
    counts: NDArray[np.int64]

    @property
    def cardinality(self) -> int:
        return RARE_ID + 1 + len(self.tokens)


class Counts:
    """Counts of one feature's tokens with hash % 2^bits == part, in a table that is grown or split under a lock."""

    def __init__(self, bits: int, part: int) -> None:
        self.bits, self.part, self.used = bits, part, 0
        self.keys, self.counts = np.zeros(SMALLEST, np.uint32), np.zeros(SMALLEST, np.int64)
        self.lock = threading.Lock()

    def resize(self, slots: int) -> None:
        keys, counts = np.zeros(slots, np.uint32), np.zeros(slots, np.int64)
        self.used = tables.add_counts(keys, counts, 0, self.keys, self.counts, self.bits, self.part)
        self.keys, self.counts = keys, counts


class _Pass:
    """One pass over the parts, for one hash partition of every feature that is not finished."""

    def __init__(self, todo: dict[int, list[tuple[int, int]]], limit: int) -> None:
        self.counts = {feature: Counts(*partitions.pop()) for feature, partitions in todo.items() if partitions}
        self.todo, self.limit = todo, limit
        self.slots = sum(len(one.keys) for one in self.counts.values())
        self.slots_lock = threading.Lock()

    def add(self, feature: int, values: NDArray[np.uint32], counts: NDArray[np.int64]) -> None:
        one = self.counts[feature]
        with one.lock:
            while (one.used + len(values)) * 2 > len(one.keys) and self._make_room(feature, one, len(values)):
                pass
            one.used = tables.add_counts(one.keys, one.counts, one.used, values, counts, one.bits, one.part)

    def _make_room(self, feature: int, one: Counts, coming: int) -> bool:
        slots = len(one.keys)
        with self.slots_lock:
            fits = (self.slots + slots) * SLOT_BYTES <= self.limit
            if fits or slots < SPLITTABLE:
                self.slots += slots
        if fits or slots < SPLITTABLE:
            one.resize(2 * slots)
            return True
        # What is dropped now, and all that is skipped from here on, is counted from the beginning in a later pass.
        self.todo[feature].append((one.bits + 1, one.part + (1 << one.bits)))
        one.bits += 1
        one.resize(slots)
        return True


def _histograms(group: Group, train: NDArray[np.uint8]) -> list[NDArray[np.int64]]:
    """How often each distinct value of each column occurs in the rows where `train` [N] is 1."""
    flat = np.zeros(int(group.sizes.sum()), np.int64)
    tables.histograms(group.codes, group.sizes, train, flat)
    return np.split(flat, np.cumsum(group.sizes)[:-1])


def count(
    parts: list[Part],
    train_rows: Callable[[int, int], NDArray[np.uint8]],
    min_count: int,
    memory_limit: int,
    workers: int,
) -> list[Vocabulary]:
    """Counts the tokens of the train split and gives ids to those that occur at least `min_count` times.

    Args:
        train_rows: (first row, rows) -> [rows] uint8, 1 where the row is in the train split.
        memory_limit: bytes for the tables of counts, about.

    Returns:
        The vocabularies in the order of CATEGORICAL.
    """
    todo: dict[int, list[tuple[int, int]]] = {feature: [(0, 0)] for feature in range(len(CATEGORICAL))}
    kept: dict[int, list[tuple[NDArray[np.int64], NDArray[np.int64]]]] = {feature: [] for feature in todo}
    firsts = np.cumsum([0] + [part.rows for part in parts])
    passes = 0
    while any(todo.values()):
        passes += 1
        progress = Progress("count" if passes == 1 else f"count, pass {passes}", total_rows=int(firsts[-1]))
        run = _Pass(todo, memory_limit)

        def work(number: int, run: _Pass = run) -> int:
            first = int(firsts[number])
            for group in read_groups(parts[number].path):
                rows = len(group.label)
                _count_group(run, group, train_rows(first, rows), number)
                first += rows
            return parts[number].rows

        with ThreadPoolExecutor(workers) as pool:
            for rows in pool.map(work, range(len(parts))):
                progress.update(rows=rows)
        progress.close()
        for feature, one in run.counts.items():
            here = one.counts >= min_count
            tokens = one.keys[here].astype(np.int64)
            if feature >= len(CATEGORICAL) - INTEGERS:
                tokens = one.keys[here].view(np.int32).astype(np.int64)
            kept[feature].append((tokens, one.counts[here]))
    return [_ordered(name, kept[feature]) for feature, name in enumerate(CATEGORICAL)]


def _count_group(run: _Pass, group: Group, train: NDArray[np.uint8], number: int) -> None:
    values = np.split(group.values, np.cumsum(group.sizes)[:-1])
    counts = _histograms(group, train)
    tokens = len(CATEGORICAL) - INTEGERS
    # Threads begin at different features, so that they seldom wait for each other's.
    for step in range(len(CATEGORICAL)):
        feature = (step + 7 * number) % len(CATEGORICAL)
        if feature not in run.counts:
            continue
        column = feature + INTEGERS if feature < tokens else feature - tokens
        here = values[column] if feature < tokens else tables.buckets(values[column])
        run.add(feature, here, counts[column])


def _ordered(name: str, pieces: list[tuple[NDArray[np.int64], NDArray[np.int64]]]) -> Vocabulary:
    tokens, counts = (np.concatenate(arrays) for arrays in zip(*pieces, strict=True))
    order = np.lexsort((tokens, -counts))
    return Vocabulary(name, tokens[order], counts[order])


def append_tokens(kept: Vocabulary, counted: Vocabulary) -> Vocabulary:
    """`kept` with the tokens of `counted` that it lacks behind its own, in their order: every old id stays what it was.

    A token's count stays that of the run that gave it its id.
    """
    new = ~np.isin(counted.tokens, kept.tokens)
    return Vocabulary(kept.name, np.concatenate([kept.tokens, counted.tokens[new]]), np.concatenate([kept.counts, counted.counts[new]]))


def digest(vocabularies: list[Vocabulary]) -> str:
    """sha256 over all names, tokens and counts (int64, little-endian) in the order of ids."""
    out = hashlib.sha256()
    for vocabulary in vocabularies:
        out.update(f"{vocabulary.name} {len(vocabulary.tokens)}\n".encode())
        out.update(vocabulary.tokens.astype("<i8").tobytes())
        out.update(vocabulary.counts.astype("<i8").tobytes())
    return out.hexdigest()


def write_vocabulary(path: str, vocabulary: Vocabulary) -> None:
    """Writes the columns token (int64), id (int32) and count (int64), in the order of ids, atomically."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    ids = np.arange(RARE_ID + 1, vocabulary.cardinality, dtype=np.int32)
    table = pa.table({"token": vocabulary.tokens, "id": ids, "count": vocabulary.counts})
    pq.write_table(table, path + ".tmp", compression="zstd", compression_level=1, use_dictionary=False)
    os.replace(path + ".tmp", path)


def read_vocabulary(path: str, name: str) -> Vocabulary:
    """Reads what `write_vocabulary` wrote, from anywhere."""
    import pyarrow.parquet as pq

    with PATHS.open(path, "rb") as file:
        table = pq.read_table(file)
    return Vocabulary(name, table["token"].to_numpy(), table["count"].to_numpy())


def read_kept(folder: str, manifest: Manifest) -> list[Vocabulary]:
    """The vocabularies of a data set, whose ids another one is to share.

    Raises:
        UserError: they are missing, damaged, or not this manifest's.
    """
    import pyarrow as pa

    names = [feature.name for feature in manifest.categorical]
    if manifest.dataset != "criteo" or names != list(CATEGORICAL):
        raise UserError(f"--vocabulary {folder}: a data set of '{manifest.dataset}', expected one of Criteo's columns")
    vocabularies = []
    for feature in manifest.categorical:
        path = join(folder, "vocabulary", f"{feature.name}.parquet")
        try:
            vocabulary = read_vocabulary(path, feature.name)
        except (OSError, KeyError, pa.ArrowException) as error:
            raise UserError(f"--vocabulary {path}: cannot be read ({(str(error).splitlines() or ['?'])[0][:150]})") from None
        if vocabulary.cardinality != feature.cardinality:
            raise UserError(f"--vocabulary {path}: {vocabulary.cardinality:,} ids, its manifest says {feature.cardinality:,}")
        vocabularies.append(vocabulary)
    if manifest.made_by.get("vocabulary_sha256", digest(vocabularies)) != digest(vocabularies):
        raise UserError(f"--vocabulary {folder}: its tokens are not those that its manifest was written with; copy the data set again")
    return vocabularies
