"""Compiled functions that parse raw values and look them up, without the GIL.

Shapes: B rows, N texts, K columns of integers, F categorical features, I numeric features, P features that are looked up, J columns of
whole numbers.
"""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dmoe.data.dataset.manifest import MISSING_ID, RARE_ID
from dmoe.data.prepare.parse.typed_kernels import eight_hex_digits
from dmoe.data.prepare.split.split_rules import GOLDEN
from dmoe.data.prepare.tokens.byte_words import first_bytes, hash_span, mixed, same_bytes
from dmoe.data.prepare.tokens.coded_column import INTEGER_LIMIT
from dmoe.data.prepare.tokens.kernels import log1p_of, slot_of
from dmoe.data.prepare.tokens.token_ids import text_hash

TEXT, HEX, INT = 0, 1, 2
KINDS = {"string": TEXT, "hex": HEX, "int": INT}
DIGITS = 18
"""Longer numbers are left to the pipeline. So many digits always fit into int64."""
ZEROS = np.uint64(0x3030303030303030)
COLUMN, PLACE, KIND, HASHED, LOW, MASK, TOKEN, EDGE = range(8)
"""The columns of a plan: column of the rows, place among the categorical features, kind, size of hashed ids or 0, first slot, slots - 1,
first token and first offset in the joined tables."""


@njit(nogil=True, cache=True)
def _whole(text: NDArray[np.uint8], at: int, end: int) -> tuple[int, bool]:
    """Parses an optional minus sign and digits: (the number, whether it is one)."""
    negative = text[at] == ord("-")
    at += negative
    if at == end or end - at > DIGITS:
        return 0, False
    number = 0
    for place in range(at, end):
        digit = int(text[place]) - ord("0")
        if digit < 0 or digit > 9:
            return 0, False
        number = 10 * number + digit
    return -number if negative else number, True


@njit(nogil=True, cache=True)
def _hex(text: NDArray[np.uint8], at: int, end: int) -> tuple[int, bool]:
    """Parses 1 to 8 hex digits: (the number, whether it is one)."""
    size = end - at
    if size > 8:
        return 0, False
    word = first_bytes(text, at, size)
    if size < 8:
        # Zeros in front.
        word = (word << np.uint64(64 - 8 * size)) | (ZEROS >> np.uint64(8 * size))
    number = eight_hex_digits(word)
    return number, number >= 0


@njit(nogil=True, cache=True)
def _is_missing(text: NDArray[np.uint8], at: int, size: int, missing: NDArray[np.uint8], edges: NDArray[np.int64]) -> bool:
    for one in range(len(edges) - 1):
        if edges[one + 1] - edges[one] == size and same_bytes(missing, edges[one], text, at, size):
            return True
    return size == 0


@njit(nogil=True, cache=True)
def _number_id(keys: Any, ids: NDArray[np.int32], low: int, mask: int, number: int) -> int:
    slot = slot_of(number) & mask
    while ids[low + slot] != 0:
        if keys[low + slot] == number:
            return int(ids[low + slot])
        slot = (slot + 1) & mask
    return RARE_ID


@njit(nogil=True, cache=True)
def _hashed_id(hashed: np.uint64, size: int) -> int:
    return RARE_ID + 1 + int(hashed % np.uint64(size - RARE_ID - 1))


@njit(nogil=True, cache=True)
def _text_id(
    text: NDArray[np.uint8],
    at: int,
    size: int,
    plan: NDArray[np.int64],
    slots: NDArray[np.int32],
    hashes: NDArray[np.uint64],
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
) -> int:
    h = hash_span(text, at, size)
    slot = np.int64(h & np.uint64(plan[MASK]))
    while slots[plan[LOW] + slot] != 0:
        token = slots[plan[LOW] + slot] - 1
        there = offsets[plan[EDGE] + token]
        same_size = offsets[plan[EDGE] + token + 1] - there == size
        if hashes[plan[TOKEN] + token] == h and same_size and same_bytes(data, there, text, at, size):
            return RARE_ID + 1 + token
        slot = (slot + 1) & plan[MASK]
    return RARE_ID


@njit(nogil=True, cache=True)
def look_up(
    text: NDArray[np.uint8],
    first_N: NDArray[np.int64],
    end_N: NDArray[np.int64],
    column_C: NDArray[np.int64],
    step_C: NDArray[np.int64],
    missing: NDArray[np.uint8],
    edges: NDArray[np.int64],
    plan_P8: NDArray[np.int64],
    hexes: tuple[NDArray[np.uint32], NDArray[np.int32]],
    wholes: tuple[NDArray[np.int64], NDArray[np.int32]],
    texts: tuple[NDArray[np.int32], NDArray[np.uint64], NDArray[np.uint8], NDArray[np.int64]],
    out_BF: NDArray[np.int32],
) -> bool:
    """Sets out_BF to the ids of the features in the plan. Returns whether all values were well-formed."""
    slots, hashes, data, offsets = texts
    hex_keys, hex_ids = hexes
    whole_keys, whole_ids = wholes
    # Feature by feature: the table of a feature stays in the cache of a core.
    for one in range(len(plan_P8)):
        plan = plan_P8[one]
        kind, hashed, first, step = plan[KIND], plan[HASHED], column_C[plan[COLUMN]], step_C[plan[COLUMN]]
        place, low, mask = plan[PLACE], plan[LOW], plan[MASK]
        for row in range(len(out_BF)):
            at, end = first_N[first + row * step], end_N[first + row * step]
            found = np.int64(MISSING_ID)
            if _is_missing(text, at, end - at, missing, edges):
                pass
            elif kind == TEXT and hashed:
                found = _hashed_id(text_hash(text, at, end), hashed)
            elif kind == TEXT:
                found = np.int64(_text_id(text, at, end - at, plan, slots, hashes, data, offsets))
            else:
                number, good = _hex(text, at, end) if kind == HEX else _whole(text, at, end)
                if not good:
                    return False
                if hashed:
                    # As `hashes` of token_ids: an integer of 32 bits is reduced to them.
                    bits = number & 0xFFFFFFFF if number == np.int32(number) else number
                    found = _hashed_id(mixed(np.uint64(bits) + GOLDEN), hashed)
                elif kind == HEX:
                    found = np.int64(_number_id(hex_keys, hex_ids, low, mask, number))
                else:
                    found = np.int64(_number_id(whole_keys, whole_ids, low, mask, number))
            out_BF[row, place] = found
    return True


@njit(nogil=True, cache=True)
def parse(
    text: NDArray[np.uint8],
    first_N: NDArray[np.int64],
    end_N: NDArray[np.int64],
    column_J: NDArray[np.int64],
    step_J: NDArray[np.int64],
    integers: tuple[NDArray[np.int64], NDArray[np.bool_]],
    missing: NDArray[np.uint8],
    edges: NDArray[np.int64],
    value_JB: NDArray[np.int32],
    given_JB: NDArray[np.bool_],
) -> bool:
    """Sets the numbers of 32 bits, 0 if missing, and whether there is one. Returns whether all values were well-formed."""
    integer_KB, given_KB = integers
    for one in range(len(column_J)):
        first, step = column_J[one], step_J[one]
        for row in range(value_JB.shape[1]):
            if first < 0:
                given, number, good = given_KB[-1 - first, row], integer_KB[-1 - first, row], True
            else:
                at, end = first_N[first + row * step], end_N[first + row * step]
                given = not _is_missing(text, at, end - at, missing, edges)
                number, good = _whole(text, at, end) if given else (0, True)
            # The absolute value of the smallest integer of 64 bits would be negative.
            if not good or number > INTEGER_LIMIT or number < -INTEGER_LIMIT:
                return False
            given_JB[one, row], value_JB[one, row] = given, number
    return True


@njit(nogil=True, cache=True)
def bucket_ids(
    value_JB: NDArray[np.int32],
    given_JB: NDArray[np.bool_],
    plan_P8: NDArray[np.int64],
    steps_P5: NDArray[np.int64],
    steps: NDArray[np.int64],
    wholes: tuple[NDArray[np.int64], NDArray[np.int32]],
    out_BF: NDArray[np.int32],
) -> None:
    """Sets out_BF to the ids of bucket features.

    Args:
        steps_P5: place in value_JB, begin and end in `steps`, `least` and `own` (see `Steps`) of each feature.
        steps: the steps of all features, one after another.
    """
    keys, ids = wholes
    for one in range(len(plan_P8)):
        place, low, mask = plan_P8[one][PLACE], plan_P8[one][LOW], plan_P8[one][MASK]
        j, begin, end, least, own = steps_P5[one][0], steps_P5[one][1], steps_P5[one][2], steps_P5[one][3], steps_P5[one][4]
        for row in range(len(out_BF)):
            found = np.int64(MISSING_ID)
            if given_JB[j, row]:
                number = np.int64(value_JB[j, row])
                if end > begin and number >= steps[begin]:
                    first, last = begin, end
                    while last - first > 1:
                        middle = (first + last) // 2
                        if steps[middle] <= number:
                            first = middle
                        else:
                            last = middle
                    number = least + first - begin + 1
                elif not own:
                    number = least
                found = np.int64(_number_id(keys, ids, low, mask, number))
            out_BF[row, place] = found


@njit(nogil=True, cache=True)
def write_log1p(
    value_JB: NDArray[np.int32],
    given_JB: NDArray[np.bool_],
    places: NDArray[np.int64],
    numbers: NDArray[np.int64],
    out: NDArray[np.float32],
) -> None:
    for one in range(len(places)):
        for row in range(len(out)):
            out[row, places[one]] = log1p_of(value_JB[numbers[one], row]) if given_JB[numbers[one], row] else np.float32(0)
