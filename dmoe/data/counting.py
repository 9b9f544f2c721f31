"""Counts of tokens in bounded memory, each feature's in a hash table.

Where the tables would outgrow the limit, the table that wants to grow drops the tokens of one half of its hash partition, which a
further pass over the same parts counts.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dmoe.data import tables
from dmoe.data.criteo import BUCKETS, CATEGORICAL
from dmoe.data.parse import Group
from dmoe.data.stage import Part, read_groups

SMALLEST, SPLITTABLE = 1 << 12, 1 << 18
"""Slots of a new table; a table below SPLITTABLE grows whatever the limit, since little is won by splitting it."""
SLOT_BYTES = 12
INTEGERS = len(BUCKETS)

TrainRows = Callable[[int, int], NDArray[np.uint8]]
"""(first row, rows) -> [rows] uint8, 1 where the row is in the train split."""
Partition = tuple[int, int]
"""(bits, part): the tokens whose hash ends in `part`, of `bits` bits."""


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

    def at_least(self, least: int) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """The tokens that were counted so often, in no order, and their counts."""
        here = self.counts >= least
        return self.keys[here], self.counts[here]


class Pass:
    """One pass over what is to be counted, for one hash partition of every feature of `todo` that has one left."""

    def __init__(self, todo: dict[int, list[Partition]], limit: int) -> None:
        self.counts = {feature: Counts(*partitions.pop()) for feature, partitions in todo.items() if partitions}
        self.todo, self.limit = todo, limit
        self.slots = sum(len(one.keys) for one in self.counts.values())
        self.slots_lock = threading.Lock()

    def add(self, feature: int, values: NDArray[np.uint32], counts: NDArray[np.int64]) -> None:
        one = self.counts[feature]
        with one.lock:
            while (one.used + len(values)) * 2 > len(one.keys):
                self._make_room(feature, one)
            one.used = tables.add_counts(one.keys, one.counts, one.used, values, counts, one.bits, one.part)

    def _make_room(self, feature: int, one: Counts) -> None:
        slots = len(one.keys)
        with self.slots_lock:
            fits = (self.slots + slots) * SLOT_BYTES <= self.limit
            if fits or slots < SPLITTABLE:
                self.slots += slots
        if fits or slots < SPLITTABLE:
            one.resize(2 * slots)
            return
        # What is dropped now, and all that is skipped from here on, is counted from the beginning in a later pass.
        self.todo[feature].append((one.bits + 1, one.part + (1 << one.bits)))
        one.bits += 1
        one.resize(slots)


def in_passes(
    todo: dict[int, list[Partition]], limit: int, count: Callable[[Pass, int], None], keep: Callable[[int, Counts], None]
) -> None:
    """Counts the partitions `todo` of every feature, in as many passes as the limit asks for.

    Args:
        limit: bytes for the tables, about.
        count: makes pass number 1, 2, ... over all that is to be counted.
        keep: called with each feature's counts, of one partition of its tokens, at the end of a pass.
    """
    passes = 0
    while any(todo.values()):
        passes += 1
        run = Pass(todo, limit)
        count(run, passes)
        for feature, one in run.counts.items():
            keep(feature, one)


@dataclass(frozen=True)
class Rows:
    """The parts to count, in order, with the number of each one's first row."""

    parts: list[Part]
    firsts: list[int]
    train_rows: TrainRows

    def count(self, run: Pass, number: int) -> None:
        """Counts the tokens of part `number`."""
        first = self.firsts[number]
        for group in read_groups(self.parts[number].path):
            _count_group(run, group, self.train_rows(first, len(group.label)), number)
            first += len(group.label)


def all_features() -> dict[int, list[Partition]]:
    return {feature: [(0, 0)] for feature in range(len(CATEGORICAL))}


def _histograms(group: Group, train: NDArray[np.uint8]) -> list[NDArray[np.int64]]:
    """How often each distinct value of each column occurs in the rows where `train` [N] is 1."""
    flat = np.zeros(int(group.sizes.sum()), np.int64)
    tables.histograms(group.codes, group.sizes, train, flat)
    return np.split(flat, np.cumsum(group.sizes)[:-1])


def _count_group(run: Pass, group: Group, train: NDArray[np.uint8], number: int) -> None:
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
