"""Hash tables of byte strings: token -> id without a Python object a token, and without holding the GIL.

A table is open-addressing with linear probing, at most half full; a slot holds a token's number (0 where free), whose bytes are compared.
"""

import numpy as np
import pyarrow as pa
from numba import njit
from numpy.typing import NDArray

from dmoe.data.dataset.manifest import RARE_ID


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
def _fill(slots: NDArray[np.int32], hash_of: NDArray[np.uint64]) -> None:
    mask = np.uint64(len(slots) - 1)
    for i in range(len(hash_of)):
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
    hash_of: NDArray[np.uint64],
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    rare: int,
    out: NDArray[np.int32],
) -> None:
    mask = np.uint64(len(slots) - 1)
    for i in range(len(out)):
        out[i] = rare
        slot = hash_of[i] & mask
        while slots[slot] != 0:
            j = slots[slot] - 1
            size = offsets[i + 1] - offsets[i]
            if known_hash[j] == hash_of[i] and known_at[j + 1] - known_at[j] == size:
                same = True
                for at in range(size):
                    if known[known_at[j] + at] != data[offsets[i] + at]:
                        same = False
                        break
                if same:
                    out[i] = rare + 1 + j
                    break
            slot = (slot + np.uint64(1)) & mask


class TokenIds:
    """Token -> id of a vocabulary: the token at place j has id 2 + j, an unknown one RARE_ID. Shared by threads, never written again."""

    def __init__(self, tokens: pa.Array) -> None:
        self.data, self.offsets = buffers(tokens)
        self.hashes = hashes(tokens)
        self.slots = np.zeros(1 << (2 * len(tokens) + 1).bit_length(), np.int32)
        _fill(self.slots, self.hashes)

    def look_up(self, tokens: pa.Array) -> NDArray[np.int32]:
        """The id of each token, [n]."""
        out = np.empty(len(tokens), np.int32)
        _look_up(self.slots, self.hashes, self.data, self.offsets, hashes(tokens), *buffers(tokens), RARE_ID, out)
        return out
