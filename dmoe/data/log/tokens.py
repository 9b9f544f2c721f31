"""Hash tables of byte strings: token -> id without a Python object a token, and without holding the GIL.

A table is open-addressing with linear probing, at most half full; a slot holds a token's number (0 where free), whose bytes are compared.
"""

import numpy as np
import pyarrow as pa
from numba import njit
from numpy.typing import NDArray

from dmoe.data.dataset.manifest import RARE_ID
from dmoe.data.log.whole_numbers import NumberIds
from dmoe.data.log.words import hash_span, same_bytes


def buffers(tokens: pa.Array) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The bytes of a large_binary array without nulls, and its offsets [n + 1]."""
    if len(tokens) == 0:
        return np.zeros(0, np.uint8), np.zeros(1, np.int64)
    _, offsets, data = tokens.buffers()
    starts = np.frombuffer(offsets, np.int64)[tokens.offset : tokens.offset + len(tokens) + 1]
    return np.frombuffer(data, np.uint8) if data and data.size else np.zeros(0, np.uint8), starts


@njit(nogil=True, cache=True)
def _hash_all(data: NDArray[np.uint8], offsets: NDArray[np.int64], out: NDArray[np.uint64]) -> None:
    for i in range(len(out)):
        # FNV-1a (Fowler, Noll, Vo), then splitmix64's finaliser, since FNV's low bits are weak.
        x = np.uint64(0xCBF29CE484222325)
        for at in range(offsets[i], offsets[i + 1]):
            x = (x ^ np.uint64(data[at])) * np.uint64(0x100000001B3)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        out[i] = x ^ (x >> np.uint64(31))


def hashes(tokens: pa.Array) -> NDArray[np.uint64]:
    """A 64-bit hash of each token, [n], the same on every machine."""
    out = np.empty(len(tokens), np.uint64)
    _hash_all(*buffers(tokens), out)
    return out


@njit(nogil=True, cache=True)
def _fill(slots: NDArray[np.int32], hash_of: NDArray[np.uint64], data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> None:
    mask = np.uint64(len(slots) - 1)
    for i in range(len(hash_of)):
        hash_of[i] = hash_span(data, offsets[i], offsets[i + 1] - offsets[i])
        slot = hash_of[i] & mask
        while slots[slot] != 0:
            slot = (slot + np.uint64(1)) & mask
        slots[slot] = i + 1


@njit(nogil=True, cache=True)
def _look_up(
    slots: NDArray[np.int32],
    known_hash: NDArray[np.uint64],
    known: NDArray[np.uint8],
    known_at: NDArray[np.int64],
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    rare: int,
    out: NDArray[np.int32],
) -> None:
    mask = np.uint64(len(slots) - 1)
    for i in range(len(out)):
        out[i] = rare
        at = offsets[i]
        size = offsets[i + 1] - at
        h = hash_span(data, at, size)
        slot = h & mask
        while slots[slot] != 0:
            j = slots[slot] - 1
            there = known_at[j]
            if known_hash[j] == h and known_at[j + 1] - there == size and same_bytes(known, there, data, at, size):
                out[i] = rare + 1 + j
                break
            slot = (slot + np.uint64(1)) & mask


class TokenIds:
    """Token -> id of a vocabulary: the token at place j has id 2 + j, an unknown one RARE_ID. Shared by threads, never written again.

    Where all tokens of the vocabulary are whole numbers, a token that is not among them is looked up by its number: an exporter that
    turns 1007 into 1007.0 must not make all its rows unknown.
    """

    def __init__(self, tokens: pa.Array) -> None:
        self.data, self.offsets = buffers(tokens)
        self.hashes = np.empty(len(tokens), np.uint64)
        self.slots = np.zeros(1 << (2 * len(tokens) + 1).bit_length(), np.int32)
        _fill(self.slots, self.hashes, self.data, self.offsets)
        self.numbers = NumberIds(self.data, self.offsets, RARE_ID + 1)

    def look_up(self, tokens: pa.Array) -> NDArray[np.int32]:
        """The id of each token, [n]."""
        out = np.empty(len(tokens), np.int32)
        data, offsets = buffers(tokens)
        _look_up(self.slots, self.hashes, self.data, self.offsets, data, offsets, RARE_ID, out)
        self.numbers.look_up(data, offsets, out, RARE_ID)
        return out
