"""Compiled functions for counting and writing: hash tables of integer tokens, transforms of integers, gathers by code.

Hash tables use open addressing with linear probing. Their number of slots is a power of two, and at most half of them are used. Tokens
are uint32 or int64.
"""

import math
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmoe.processes.compiled import compiled

MULTIPLIER = 0x9E3779B97F4A7C15


@partial(compiled, inline="always")
def slot_of(token: Any) -> np.int64:
    """A hash of a token; its low bits are the slot where the search in a table begins."""
    x = np.uint64(token) * np.uint64(MULTIPLIER)
    return np.int64((x ^ (x >> np.uint64(32))) >> np.uint64(20))


@compiled
def add_counts(keys: NDArray[Any], counts: NDArray[np.int64], used: int, tokens: NDArray[Any], add: NDArray[np.int64]) -> int:
    """Adds add[i] to the count of tokens[i]; returns the number of used slots. A slot with count 0 is free. The table must be large
    enough."""
    mask = len(keys) - 1
    for i in range(len(tokens)):
        if add[i] == 0:
            continue
        slot = slot_of(tokens[i]) & mask
        while counts[slot] != 0 and keys[slot] != tokens[i]:
            slot = (slot + 1) & mask
        if counts[slot] == 0:
            keys[slot] = tokens[i]
            used += 1
        counts[slot] += add[i]
    return used


@compiled
def fill_ids(keys: NDArray[Any], ids: NDArray[np.int32], tokens: NDArray[Any], first_id: int) -> None:
    """Inserts tokens[i] with the id first_id + i into an empty table (all ids 0)."""
    mask = len(keys) - 1
    for i in range(len(tokens)):
        slot = slot_of(tokens[i]) & mask
        while ids[slot] != 0:
            slot = (slot + 1) & mask
        keys[slot] = tokens[i]
        ids[slot] = first_id + i


@compiled
def look_up(keys: NDArray[Any], ids: NDArray[np.int32], tokens: NDArray[Any], rare: int, out: NDArray[np.int32]) -> None:
    """Sets out[i] to the id of tokens[i], or to `rare` if it has none."""
    mask = len(keys) - 1
    for i in range(len(tokens)):
        slot = slot_of(tokens[i]) & mask
        while ids[slot] != 0 and keys[slot] != tokens[i]:
            slot = (slot + 1) & mask
        out[i] = ids[slot] if ids[slot] != 0 else rare


@compiled
def histogram(codes: NDArray[Any], chosen: NDArray[np.bool_], out: NDArray[np.int64]) -> None:
    """Adds to out[c] the number of chosen rows with code c."""
    for n in range(len(chosen)):
        out[codes[n]] += chosen[n]


@compiled
def log1p_of(value: Any) -> np.float32:
    """sign(v) * ln(1 + |v|) of an integer v."""
    size = math.log1p(float(abs(np.int64(value))))
    return np.float32(size if value >= 0 else -size)


@compiled
def log1p(values: NDArray[np.int32]) -> NDArray[np.float32]:
    """`log1p_of` each integer."""
    out = np.empty(len(values), np.float32)
    for i in range(len(values)):
        out[i] = log1p_of(values[i])
    return out


@compiled
def gather(codes: NDArray[Any], rows: NDArray[np.int64], of_code: NDArray[Any], out: NDArray[Any]) -> tuple[int, int]:
    """Sets out[i] to of_code[codes[rows[i]]]; returns how many codes are 0 (missing), and how many results are 1 (the rare id)."""
    missing = rare = 0
    for i in range(len(rows)):
        code = codes[rows[i]]
        out[i] = of_code[code]
        missing += code == 0
        rare += out[i] == 1
    return missing, rare
