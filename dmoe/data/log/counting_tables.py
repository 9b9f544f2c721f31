"""Counts by token, in a hash table of byte strings: each token is held once, however often it is added."""

import numpy as np
import pyarrow as pa
from numba import njit
from numpy.typing import NDArray

from dmoe.data.log.tokens import buffers
from dmoe.data.log.words import hash_span, same_bytes

FEWEST = 1 << 10


@njit(nogil=True, cache=True)
def _add(
    text: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    count: NDArray[np.int64],
    begin: int,
    slots: NDArray[np.int32],
    hash_of: NDArray[np.uint64],
    known_at: NDArray[np.int64],
    known: NDArray[np.uint8],
    sums: NDArray[np.int64],
    size_known: int,
) -> tuple[int, int]:
    """Adds the counts of tokens begin, begin + 1, ... until there is no room; (the first that is not added, how many tokens are known)."""
    mask = np.uint64(len(slots) - 1)
    for i in range(begin, len(count)):
        if count[i] == 0:
            continue
        at = offsets[i]
        size = offsets[i + 1] - at
        h = hash_span(text, at, size)
        slot = h & mask
        while True:
            j = slots[slot] - 1
            if j < 0:
                there = known_at[size_known]
                if size_known == len(sums) or there + size > len(known):
                    return i, size_known
                for k in range(size):
                    known[there + k] = text[at + k]
                known_at[size_known + 1] = there + size
                hash_of[size_known], sums[size_known] = h, count[i]
                size_known += 1
                slots[slot] = size_known
                break
            there = known_at[j]
            if hash_of[j] == h and known_at[j + 1] - there == size and same_bytes(known, there, text, at, size):
                sums[j] += count[i]
                break
            slot = (slot + np.uint64(1)) & mask
    return len(count), size_known


@njit(nogil=True, cache=True)
def _fill(slots: NDArray[np.int32], hash_of: NDArray[np.uint64]) -> None:
    mask = np.uint64(len(slots) - 1)
    for j in range(len(hash_of)):
        slot = hash_of[j] & mask
        while slots[slot] != 0:
            slot = (slot + np.uint64(1)) & mask
        slots[slot] = j + 1


@njit(nogil=True, cache=True)
def _take(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], rows: NDArray[np.int64], out: NDArray[np.uint8], out_at: NDArray[np.int64]
) -> None:
    for i in range(len(rows)):
        to = out_at[i]
        for at in range(offsets[rows[i]], offsets[rows[i] + 1]):
            out[to] = data[at]
            to += 1


class CountingTable:
    """Token -> count. Not for several threads at a time."""

    def __init__(self) -> None:
        self._known = 0
        self._slots = np.zeros(2 * FEWEST, np.int32)
        self._hashes, self._counts = np.empty(FEWEST, np.uint64), np.empty(FEWEST, np.int64)
        self._offsets, self._data = np.zeros(FEWEST + 1, np.int64), np.empty(8 * FEWEST, np.uint8)

    def __len__(self) -> int:
        return self._known

    @property
    def nbytes(self) -> int:
        return sum(one.nbytes for one in (self._slots, self._hashes, self._counts, self._offsets, self._data))

    def add(self, tokens: pa.Array, counts: NDArray[np.int64]) -> None:
        """
        Args:
            tokens: large_binary [n], without nulls; with a count [n] of 0 one is left out.
        """
        text, offsets = buffers(tokens)
        at = 0
        while True:
            table = self._slots, self._hashes, self._offsets, self._data, self._counts
            at, self._known = _add(text, offsets, counts, at, *table, self._known)
            if at == len(counts):
                return
            self._grow(int(offsets[at + 1] - offsets[at]))

    def _grow(self, size: int) -> None:
        """Makes room for a further token of so many bytes, and for as much again as there is where that was what lacked."""
        used = int(self._offsets[self._known])
        if used + size > len(self._data):
            self._data = np.concatenate([self._data[:used], np.empty(max(used, size), np.uint8)])
        if self._known == len(self._counts):
            more = np.empty(self._known, np.int64)
            self._hashes, self._counts = np.concatenate([self._hashes, more.view(np.uint64)]), np.concatenate([self._counts, more])
            self._offsets = np.concatenate([self._offsets, more])
            self._slots = np.zeros(2 * len(self._slots), np.int32)
            _fill(self._slots, self._hashes[: self._known])

    def entries(self, rows: NDArray[np.int64]) -> tuple[pa.Array, NDArray[np.int64]]:
        """(tokens, large_binary, counts) of these of the tokens, by their places."""
        sizes = self._offsets[1 : self._known + 1] - self._offsets[: self._known]
        offsets = np.concatenate([[0], np.cumsum(sizes[rows])])
        data = np.empty(offsets[-1], np.uint8)
        _take(self._data, self._offsets, rows, data, offsets)
        return pa.Array.from_buffers(pa.large_binary(), len(rows), [None, pa.py_buffer(offsets), pa.py_buffer(data)]), self._counts[rows]

    @property
    def hashes(self) -> NDArray[np.uint64]:
        """Of each token, [n]."""
        return self._hashes[: self._known]

    @property
    def counts(self) -> NDArray[np.int64]:
        """Of each token, [n]."""
        return self._counts[: self._known]


@njit(nogil=True, cache=True)
def count_codes(codes: NDArray[np.int32], offsets: NDArray[np.int64], counted: NDArray[np.bool_], out: NDArray[np.int64]) -> None:
    """out[code] += 1 for the codes of every row that is `counted`: offsets[i] .. offsets[i + 1] - 1 are row i's, one a row where empty."""
    for i in range(len(counted)):
        if counted[i]:
            if len(offsets) == 0:
                out[codes[i]] += 1
            else:
                for at in range(offsets[i], offsets[i + 1]):
                    out[codes[at]] += 1
