"""The kernels of stages 2 and 3: hash tables of tokens, buckets and dense transforms of distinct values, gathers by code.

Tables are open-addressing with linear probing, a power of two of slots, at most half full. Tokens are uint32; a bucket's number is
there as its two's complement.
"""

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

MULTIPLIER = 0x9E3779B97F4A7C15


@njit(nogil=True, cache=True, inline="always")
def _hash(token: np.uint32) -> np.uint64:
    x = np.uint64(token) * np.uint64(MULTIPLIER)
    return x ^ (x >> np.uint64(32))


@njit(nogil=True, cache=True)
def add_counts(
    keys: NDArray[np.uint32],
    counts: NDArray[np.int64],
    used: int,
    tokens: NDArray[np.uint32],
    add: NDArray[np.int64],
    bits: int,
    part: int,
) -> int:
    """Adds `add[i]` to the count of tokens[i], for tokens whose hash ends in `part` (of `bits` bits); returns the slots in use.

    A slot is free where its count is 0. The caller has made room.
    """
    mask = len(keys) - 1
    low = (np.uint64(1) << np.uint64(bits)) - np.uint64(1)
    for i in range(len(tokens)):
        if add[i] == 0:
            continue
        bits_of = _hash(tokens[i])
        if bits_of & low != np.uint64(part):
            continue
        # The low bits name the partition, so the slot comes from higher ones.
        slot = np.int64(bits_of >> np.uint64(20)) & mask
        while counts[slot] != 0 and keys[slot] != tokens[i]:
            slot = (slot + 1) & mask
        if counts[slot] == 0:
            keys[slot] = tokens[i]
            used += 1
        counts[slot] += add[i]
    return used


@njit(nogil=True, cache=True)
def hash_ends(tokens: NDArray[np.uint32], bits: int) -> NDArray[np.uint8]:
    """The lowest bits, 8 at most, of each token's hash: its partition, as add_counts takes it."""
    out = np.empty(len(tokens), np.uint8)
    for i in range(len(tokens)):
        out[i] = _hash(tokens[i]) & ((np.uint64(1) << np.uint64(bits)) - np.uint64(1))
    return out


@njit(nogil=True, cache=True)
def fill_ids(keys: NDArray[np.uint32], ids: NDArray[np.int32], tokens: NDArray[np.uint32], first_id: int) -> None:
    """Makes tokens[i] -> first_id + i in an empty table (all ids 0)."""
    mask = len(keys) - 1
    for i in range(len(tokens)):
        slot = np.int64(_hash(tokens[i]) >> np.uint64(20)) & mask
        while ids[slot] != 0:
            slot = (slot + 1) & mask
        keys[slot] = tokens[i]
        ids[slot] = first_id + i


@njit(nogil=True, cache=True)
def look_up(keys: NDArray[np.uint32], ids: NDArray[np.int32], tokens: NDArray[np.uint32], rare: int, out: NDArray[np.int32]) -> None:
    """out[i] = the id of tokens[i], or `rare`."""
    mask = len(keys) - 1
    for i in range(len(tokens)):
        slot = np.int64(_hash(tokens[i]) >> np.uint64(20)) & mask
        while ids[slot] != 0 and keys[slot] != tokens[i]:
            slot = (slot + 1) & mask
        out[i] = ids[slot] if ids[slot] != 0 else rare


@njit(nogil=True, cache=True)
def histograms(codes: NDArray[np.uint16], sizes: NDArray[np.int64], chosen: NDArray[np.uint8], flat: NDArray[np.int64]) -> None:
    """Adds to `flat`, column after column, how often each distinct value occurs in the chosen rows."""
    base = 0
    room = np.zeros(65536, np.int64)
    for column in range(len(codes)):
        room[: sizes[column] + 1] = 0
        for n in range(len(chosen)):
            room[codes[column, n]] += chosen[n]
        for j in range(sizes[column]):
            flat[base + j] = room[j + 1]
        base += sizes[column]


@njit(nogil=True, cache=True)
def buckets(values: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """dmoe.data.criteo.bucket of each integer."""
    out = np.empty(len(values), np.uint32)
    for i in range(len(values)):
        value = np.int64(np.int32(values[i]))
        if value > 2:
            value = 3 + np.int64(math.floor(math.log(value) ** 2))
        out[i] = np.uint32(value & 0xFFFFFFFF)
    return out


@njit(nogil=True, cache=True)
def dense(values: NDArray[np.uint32]) -> NDArray[np.float32]:
    """dmoe.data.criteo.dense of each integer."""
    out = np.empty(len(values), np.float32)
    for i in range(len(values)):
        value = np.int64(np.int32(values[i]))
        size = math.log1p(float(abs(value)))
        out[i] = size if value >= 0 else -size
    return out


@njit(nogil=True, cache=True)
def gather_ids(codes: NDArray[np.uint16], rows: NDArray[np.int64], of_code: NDArray[np.int32], out: NDArray[np.int32]) -> tuple[int, int]:
    """out[i] = of_code[codes[rows[i]]]; returns how many are 0 (missing) and how many are 1 (rare)."""
    missing = rare = 0
    for i in range(len(rows)):
        out[i] = of_code[codes[rows[i]]]
        missing += out[i] == 0
        rare += out[i] == 1
    return missing, rare


@njit(nogil=True, cache=True)
def gather_dense(codes: NDArray[np.uint16], rows: NDArray[np.int64], of_code: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    """out[i] = of_code[codes[rows[i]]]."""
    for i in range(len(rows)):
        out[i] = of_code[codes[rows[i]]]
