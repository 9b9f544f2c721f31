"""The kernels of stages 2 and 3: hash tables of integer tokens, buckets and dense transforms of distinct integers, gathers by code.

Tables are open-addressing with linear probing, a power of two of slots, at most half full. Tokens are uint32 or int64.
"""

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

MULTIPLIER = 0x9E3779B97F4A7C15


@njit(nogil=True, cache=True, inline="always")
def _hash(token: Any) -> np.uint64:
    x = np.uint64(token) * np.uint64(MULTIPLIER)
    return x ^ (x >> np.uint64(32))


@njit(nogil=True, cache=True)
def add_counts(keys: NDArray[Any], counts: NDArray[np.int64], used: int, tokens: NDArray[Any], add: NDArray[np.int64]) -> int:
    """Adds `add[i]` to the count of tokens[i]; returns the slots in use. A slot is free where its count is 0. The caller has made room."""
    mask = len(keys) - 1
    for i in range(len(tokens)):
        if add[i] == 0:
            continue
        slot = np.int64(_hash(tokens[i]) >> np.uint64(20)) & mask
        while counts[slot] != 0 and keys[slot] != tokens[i]:
            slot = (slot + 1) & mask
        if counts[slot] == 0:
            keys[slot] = tokens[i]
            used += 1
        counts[slot] += add[i]
    return used


@njit(nogil=True, cache=True)
def fill_ids(keys: NDArray[Any], ids: NDArray[np.int32], tokens: NDArray[Any], first_id: int) -> None:
    """Makes tokens[i] -> first_id + i in an empty table (all ids 0)."""
    mask = len(keys) - 1
    for i in range(len(tokens)):
        slot = np.int64(_hash(tokens[i]) >> np.uint64(20)) & mask
        while ids[slot] != 0:
            slot = (slot + 1) & mask
        keys[slot] = tokens[i]
        ids[slot] = first_id + i


@njit(nogil=True, cache=True)
def look_up(keys: NDArray[Any], ids: NDArray[np.int32], tokens: NDArray[Any], rare: int, out: NDArray[np.int32]) -> None:
    """out[i] = the id of tokens[i], or `rare`."""
    mask = len(keys) - 1
    for i in range(len(tokens)):
        slot = np.int64(_hash(tokens[i]) >> np.uint64(20)) & mask
        while ids[slot] != 0 and keys[slot] != tokens[i]:
            slot = (slot + 1) & mask
        out[i] = ids[slot] if ids[slot] != 0 else rare


@njit(nogil=True, cache=True)
def histogram(codes: NDArray[Any], chosen: NDArray[np.bool_], out: NDArray[np.int64]) -> None:
    """Adds to out[c] how often code c occurs where chosen."""
    for n in range(len(chosen)):
        out[codes[n]] += chosen[n]


@njit(nogil=True, cache=True)
def log_squared(values: NDArray[np.int32]) -> NDArray[np.int64]:
    """The bucket of each integer: itself where it is 2 at most, else 3 + floor(ln(v)^2)."""
    out = np.empty(len(values), np.int64)
    for i in range(len(values)):
        value = np.int64(values[i])
        out[i] = 3 + np.int64(math.floor(math.log(value) ** 2)) if value > 2 else value
    return out


@njit(nogil=True, cache=True)
def log1p(values: NDArray[np.int32]) -> NDArray[np.float32]:
    """sign(v) * ln(1 + |v|) of each integer."""
    out = np.empty(len(values), np.float32)
    for i in range(len(values)):
        value = np.int64(values[i])
        size = math.log1p(float(abs(value)))
        out[i] = size if value >= 0 else -size
    return out


@njit(nogil=True, cache=True)
def gather(codes: NDArray[Any], rows: NDArray[np.int64], of_code: NDArray[Any], out: NDArray[Any]) -> tuple[int, int]:
    """out[i] = of_code[codes[rows[i]]]; returns how many codes are 0 (missing), and how many results are 1 (rare, of ids)."""
    missing = rare = 0
    for i in range(len(rows)):
        code = codes[rows[i]]
        out[i] = of_code[code]
        missing += code == 0
        rare += out[i] == 1
    return missing, rare
