"""Compiled functions that parse raw values and look them up, without the GIL.

Shapes: B rows, C columns of `Spans`, F categorical features, I numeric features, P features that are looked up, J columns of whole
numbers, R rows of a block.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmoe.data.dataset.manifest import MISSING_ID, RARE_ID
from dmoe.data.prepare.parse.typed_kernels import eight_hex_digits
from dmoe.data.prepare.split.split_rules import GOLDEN
from dmoe.data.prepare.tokens.byte_words import first_bytes, hash_span, mixed, prefetch, same_bytes
from dmoe.data.prepare.tokens.coded_column import INTEGER_LIMIT
from dmoe.data.prepare.tokens.kernels import log1p_of, slot_of
from dmoe.data.prepare.tokens.token_ids import text_hash
from dmoe.processes.compiled import compiled
from dmoe.serve.encoding.spans import INTEGER

TEXT, HEX, INT = 0, 1, 2
KINDS = {"string": TEXT, "hex": HEX, "int": INT}
DIGITS = 18
"""Longer numbers are left to the pipeline. So many digits always fit into int64."""
BLOCK, NONE = 128, -1
"""Rows whose places in a table are fetched into the cache before the first of them is searched."""
ZEROS = np.uint64(0x3030303030303030)
COLUMN, PLACE, KIND, HASHED, LOW, MASK, TOKEN, EDGE = range(8)
"""The columns of a plan: column of the rows, place among the categorical features, kind, size of hashed ids or 0, first slot, slots - 1,
first token and first offset in the joined tables."""


@compiled
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


@compiled
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


@compiled
def _is_missing(text: NDArray[np.uint8], at: int, size: int, missing: NDArray[np.uint8], edges: NDArray[np.int64]) -> bool:
    for one in range(len(edges) - 1):
        if edges[one + 1] - edges[one] == size and same_bytes(missing, edges[one], text, at, size):
            return True
    return size == 0


@compiled
def _number_id(keys: Any, ids: NDArray[np.int32], low: int, mask: int, number: int) -> int:
    slot = slot_of(number) & mask
    while ids[low + slot] != 0:
        if keys[low + slot] == number:
            return int(ids[low + slot])
        slot = (slot + 1) & mask
    return RARE_ID


@compiled
def _hashed_id(hashed: np.uint64, size: int) -> int:
    return RARE_ID + 1 + int(hashed % np.uint64(size - RARE_ID - 1))


@compiled
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


@compiled
def _written(number: int, text: NDArray[np.uint8]) -> int:
    """Writes an integer at the end of `text`; returns where it begins."""
    at, rest, ten = len(text), np.uint64(abs(number)), np.uint64(10)
    while rest or at == len(text):
        at -= 1
        text[at] = ord("0") + rest % ten
        rest //= ten
    if number < 0:
        at -= 1
        text[at] = ord("-")
    return at


@compiled
def look_up(
    text: NDArray[np.uint8],
    first_CB: NDArray[np.int64],
    end_CB: NDArray[np.int64],
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
    # The values of a block, and where their search begins: NONE if the id is known already.
    key_R, slot_R = np.empty(BLOCK, np.int64), np.empty(BLOCK, np.int64)
    # Feature by feature: the table of a feature stays in the cache of a core.
    for one in range(len(plan_P8)):
        plan = plan_P8[one]
        kind, hashed, column, place, low, mask = plan[KIND], plan[HASHED], plan[COLUMN], plan[PLACE], plan[LOW], plan[MASK]
        for block in range(0, len(out_BF), BLOCK):
            size = min(BLOCK, len(out_BF) - block)
            for r in range(size):
                row = block + r
                at, end = first_CB[column, row], end_CB[column, row]
                slot_R[r] = NONE
                if end == INTEGER:
                    at, end = _written(at, text), len(text)
                if _is_missing(text, at, end - at, missing, edges):
                    out_BF[row, place] = MISSING_ID
                elif kind == TEXT:
                    if hashed:
                        out_BF[row, place] = _hashed_id(text_hash(text, at, end), hashed)
                    else:
                        out_BF[row, place] = _text_id(text, at, end - at, plan, slots, hashes, data, offsets)
                else:
                    number, good = _hex(text, at, end) if kind == HEX else _whole(text, at, end)
                    if not good:
                        return False
                    if hashed:
                        # As `hashes` of token_ids: an integer of 32 bits is reduced to them.
                        bits = number & 0xFFFFFFFF if number == np.int32(number) else number
                        out_BF[row, place] = _hashed_id(mixed(np.uint64(bits) + GOLDEN), hashed)
                        continue
                    slot = low + (slot_of(number) & mask)
                    key_R[r], slot_R[r] = number, slot
                    if kind == HEX:
                        prefetch(hex_keys, slot)
                        prefetch(hex_ids, slot)
                    else:
                        prefetch(whole_keys, slot)
                        prefetch(whole_ids, slot)
            for r in range(size):
                if slot_R[r] != NONE:
                    if kind == HEX:
                        out_BF[block + r, place] = _number_id(hex_keys, hex_ids, low, mask, key_R[r])
                    else:
                        out_BF[block + r, place] = _number_id(whole_keys, whole_ids, low, mask, key_R[r])
    return True


@compiled
def parse(
    text: NDArray[np.uint8],
    first_CB: NDArray[np.int64],
    end_CB: NDArray[np.int64],
    columns: NDArray[np.int64],
    missing: NDArray[np.uint8],
    edges: NDArray[np.int64],
    bare: bool,
    value_JB: NDArray[np.int32],
    given_JB: NDArray[np.bool_],
) -> bool:
    """Sets the numbers of 32 bits, 0 if missing, and whether there is one. Returns whether all values were well-formed.

    Args:
        bare: whether no text that means "no value" is a number.
    """
    for one in range(len(columns)):
        for row in range(value_JB.shape[1]):
            at, end = first_CB[columns[one], row], end_CB[columns[one], row]
            number, given, good = at, True, True
            if end != INTEGER or not bare:
                if end == INTEGER:
                    at, end = _written(at, text), len(text)
                given = not _is_missing(text, at, end - at, missing, edges)
                number, good = _whole(text, at, end) if given else (0, True)
            # The absolute value of the smallest integer of 64 bits would be negative.
            if not good or number > INTEGER_LIMIT or number < -INTEGER_LIMIT:
                return False
            given_JB[one, row], value_JB[one, row] = given, number
    return True


@compiled
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


@compiled
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
