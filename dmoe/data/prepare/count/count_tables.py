"""Hash tables that count tokens: one for integers, one for byte strings."""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dmoe.data.prepare.tokens import kernels
from dmoe.data.prepare.tokens.byte_words import fetch_ahead, fill_slots, hash_spans, same_bytes
from dmoe.data.prepare.tokens.spans import buffers
from dmoe.data.prepare.tokens.texts import Texts
from dmoe.processes.compiled import compiled

SMALLEST, SPILLABLE = 1 << 12, 1 << 18
"""Slots of a new integer table. A table with fewer than SPILLABLE slots may always grow: to spill it would save little memory."""
FEWEST = 1 << 10
"""Capacity of a new table of byte strings, in tokens."""


@compiled
def _add(
    tokens: Texts, hashes: NDArray[np.uint64], count: NDArray[np.int64], begin: int, table: tuple[NDArray[Any], ...], size_known: int
) -> tuple[int, int]:
    """Adds the counts of tokens begin, begin + 1, ... until the table is full; (first token that was not added, tokens in the table)."""
    slots, hash_of, known_at, known, sums = table
    data, edges = tokens
    mask = np.uint64(len(slots) - 1)
    for i in range(begin, len(count)):
        fetch_ahead(hashes, i, slots, hash_of, known_at)
        if count[i] == 0:
            continue
        at = edges[i]
        size = edges[i + 1] - at
        h = hashes[i]
        slot = h & mask
        while True:
            j = slots[slot] - 1
            if j < 0:
                there = known_at[size_known]
                if size_known == len(sums) or there + size > len(known):
                    return i, size_known
                for k in range(size):
                    known[there + k] = data[at + k]
                known_at[size_known + 1] = there + size
                hash_of[size_known], sums[size_known] = h, count[i]
                size_known += 1
                slots[slot] = size_known
                break
            there = known_at[j]
            if hash_of[j] == h and known_at[j + 1] - there == size and (size <= 8 or same_bytes(known, there, data, at, size)):
                sums[j] += count[i]
                break
            slot = (slot + np.uint64(1)) & mask
    return len(count), size_known


class NumberCounts:
    """Counts hex or integer tokens (uint32 or int64).

    Attributes:
        used: number of distinct tokens.
    """

    def __init__(self, dtype: Any) -> None:
        self.keys, self.counts, self.used = np.zeros(SMALLEST, dtype), np.zeros(SMALLEST, np.int64), 0

    @property
    def size(self) -> int:
        """Bytes in memory."""
        return self.keys.nbytes + self.counts.nbytes

    def room(self, tokens: int) -> int:
        """Bytes by which the table grows if this many tokens are added."""
        slots = len(self.keys)
        while 2 * (self.used + tokens) > slots:
            slots *= 2
        return (slots - len(self.keys)) * (self.size // len(self.keys)) if slots > SPILLABLE else 0

    def add(self, tokens: pa.Array, counts: NDArray[np.int64]) -> None:
        while 2 * (self.used + len(tokens)) > len(self.keys):
            keys, counted = self.keys, self.counts
            self.keys, self.counts = np.zeros(2 * len(keys), keys.dtype), np.zeros(2 * len(keys), np.int64)
            self.used = kernels.add_counts(self.keys, self.counts, 0, keys, counted)
        self.used = kernels.add_counts(self.keys, self.counts, self.used, tokens.to_numpy(), counts)

    def table(self) -> pa.Table:
        """Columns token and count, each token once."""
        here = self.counts > 0
        return pa.table({"token": self.keys[here], "count": self.counts[here]})


class TextCounts:
    """As NumberCounts, for byte strings. Each string is stored once; the hash table holds its position. Not thread-safe."""

    def __init__(self) -> None:
        self.used = 0
        self._slots = np.zeros(2 * FEWEST, np.int32)
        self._hashes, self._counts = np.empty(FEWEST, np.uint64), np.empty(FEWEST, np.int64)
        self._offsets, self._data = np.zeros(FEWEST + 1, np.int64), np.empty(8 * FEWEST, np.uint8)

    @property
    def size(self) -> int:
        return sum(one.nbytes for one in (self._slots, self._hashes, self._counts, self._offsets, self._data))

    def room(self, tokens: int) -> int:
        return 0

    def add(self, tokens: pa.Array, counts: NDArray[np.int64]) -> None:
        """
        Args:
            tokens: large_binary [n], without nulls.
            counts: [n]; tokens with count 0 are skipped.
        """
        texts, hashes, at = buffers(tokens), np.empty(len(counts), np.uint64), 0
        hash_spans(*texts, hashes)
        while True:
            table = self._slots, self._hashes, self._offsets, self._data, self._counts
            at, self.used = _add(texts, hashes, counts, at, table, self.used)
            if at == len(counts):
                return
            self._grow(int(texts.edges[at + 1] - texts.edges[at]))

    def _grow(self, size: int) -> None:
        """Makes room for another token of `size` bytes. What was full (the bytes or the slots) doubles."""
        used = int(self._offsets[self.used])
        if used + size > len(self._data):
            self._data = np.concatenate([self._data[:used], np.empty(max(used, size), np.uint8)])
        if self.used == len(self._counts):
            more = np.empty(self.used, np.int64)
            self._hashes, self._counts = np.concatenate([self._hashes, more.view(np.uint64)]), np.concatenate([self._counts, more])
            self._offsets = np.concatenate([self._offsets, more])
            self._slots = np.zeros(2 * len(self._slots), np.int32)
            fill_slots(self._slots, self._hashes[: self.used])

    def table(self) -> pa.Table:
        edges = self._offsets[: self.used + 1]
        held = [None, pa.py_buffer(edges), pa.py_buffer(self._data[: edges[-1]])]
        return pa.table({"token": pa.Array.from_buffers(pa.large_binary(), self.used, held), "count": self._counts[: self.used]})


def new_counts(tokens: pa.DataType) -> NumberCounts | TextCounts:
    return TextCounts() if pa.types.is_large_binary(tokens) else NumberCounts(tokens.to_pandas_dtype())
