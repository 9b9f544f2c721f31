"""Dictionary-encodes spans of a buffer, and splits texts into bags of tokens, in compiled code.

Shapes: N rows. A span is (first, end) in a buffer.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit
from numpy.typing import NDArray

from dmoe.data.prepare.tokens.byte_words import fill_slots, hash_span, same_bytes
from dmoe.data.prepare.tokens.missing_texts import NOTHING, Missing, is_missing
from dmoe.data.prepare.tokens.spans import Places, spans, strings

FEWEST_SLOTS = 1 << 10
NO_LIMIT = 2**62


@njit(nogil=True, cache=True)
def _code(
    text: NDArray[np.uint8],
    first: Places,
    end: Places,
    none: NDArray[np.uint8],
    edges: NDArray[np.int64],
    fewest: int,
    codes: NDArray[np.int32],
    code_first: Places,
    code_end: Places,
    hash_of: NDArray[np.uint64],
) -> int:
    """Numbers the distinct spans in the order of their first occurrence; -1 for missing ones. Returns the number of distinct spans."""
    slots = np.zeros(fewest, np.int32)
    mask = np.uint64(fewest - 1)
    known = 0
    for i in range(len(first)):
        at = first[i]
        size = end[i] - at
        if size == 0:
            codes[i] = -1
            continue
        h = hash_span(text, at, size)
        slot = h & mask
        while True:
            code = slots[slot] - 1
            if code < 0:
                if is_missing(text, at, end[i], none, edges):
                    codes[i] = -1
                    break
                code_first[known], code_end[known], hash_of[known] = at, end[i], h
                codes[i] = known
                known += 1
                slots[slot] = known
                if 2 * known > len(slots):
                    slots = np.zeros(4 * len(slots), np.int32)
                    mask = np.uint64(len(slots) - 1)
                    fill_slots(slots, hash_of[:known])
                break
            there = code_first[code]
            if hash_of[code] == h and code_end[code] - there == size and (size <= 8 or same_bytes(text, at, text, there, size)):
                codes[i] = code
                break
            slot = (slot + np.uint64(1)) & mask
    return known


def coded(text: NDArray[np.uint8], first: Places, end: Places, missing: Missing) -> pa.DictionaryArray:
    """Dictionary-encodes spans. Values are in the order of their first occurrence; the code of a missing value is null."""
    size = len(first)
    codes, code_first, code_end = np.empty(size, np.int32), np.empty(size, first.dtype), np.empty(size, first.dtype)
    known = _code(text, first, end, missing.text, missing.edges, FEWEST_SLOTS, codes, code_first, code_end, np.empty(size, np.uint64))
    return dictionary(codes, strings(text, code_first[:known], code_end[:known]))


def dictionary(codes: NDArray[np.int32], tokens: pa.Array) -> pa.DictionaryArray:
    """A DictionaryArray whose codes of -1 are null."""
    null_N = codes < 0
    indices = pa.array(codes, mask=null_N) if null_N.any() else pa.array(codes)
    return pa.DictionaryArray.from_arrays(indices, tokens)


@njit(nogil=True, cache=True)
def _split(
    text: NDArray[np.uint8],
    first: Places,
    end: Places,
    separator: NDArray[np.uint8],
    none: NDArray[np.uint8],
    edges: NDArray[np.int64],
    lists: NDArray[np.int64],
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Splits texts at the separator: (first, end) of each token. The tokens of text i are lists[i] .. lists[i + 1] - 1; none if the whole
    text is missing."""
    mark, width = separator[0], len(separator)
    room = len(first)
    for i in range(len(first)):
        for at in range(first[i], end[i]):
            room += text[at] == mark
    token_first, token_end = np.empty(room, np.int32), np.empty(room, np.int32)
    used = 0
    for i in range(len(first)):
        lists[i] = used
        if is_missing(text, first[i], end[i], none, edges):
            continue
        begin = at = first[i]
        while at < end[i]:
            found = text[at] == mark and at + width <= end[i]
            for j in range(1, width):
                found = found and text[at + j] == separator[j]
            if found:
                token_first[used], token_end[used] = begin, at
                used += 1
                begin = at + width
            at += width if found else 1
        token_first[used], token_end[used] = begin, end[i]
        used += 1
    lists[len(first)] = used
    return token_first[:used], token_end[:used]


@njit(nogil=True, cache=True)
def _keep(
    text: NDArray[np.uint8],
    first: Places,
    end: Places,
    none: NDArray[np.uint8],
    edges: NDArray[np.int64],
    most: int,
    lists: NDArray[np.int64],
    offsets: NDArray[np.int64],
) -> tuple[int, int]:
    """Removes missing tokens, and those beyond `most` in a list, in place; (number of tokens kept, lists with more than `most`). List i is
    tokens lists[i] .. lists[i + 1] - 1 before, and offsets[i] .. offsets[i + 1] - 1 after."""
    used, cut = 0, 0
    for i in range(len(lists) - 1):
        offsets[i], kept = used, 0
        for at in range(lists[i], lists[i + 1]):
            if not is_missing(text, first[at], end[at], none, edges):
                if kept < most:
                    first[used], end[used] = first[at], end[at]
                    used += 1
                kept += 1
        cut += kept > most
    offsets[len(lists) - 1] = used
    return used, cut


def _bags(
    text: NDArray[np.uint8], first: Places, end: Places, lists: NDArray[np.int64], most: int | None, missing: Missing
) -> tuple[pa.Array, int]:
    offsets = np.empty(len(lists), np.int64)
    used, cut = _keep(text, first, end, missing.text, missing.edges, NO_LIMIT if most is None else most, lists, offsets)
    return pa.LargeListArray.from_arrays(pa.array(offsets), coded(text, first[:used], end[:used], NOTHING)), cut


def bags(text: NDArray[np.uint8], first: Places, end: Places, separator: bytes, most: int | None, missing: Missing) -> tuple[pa.Array, int]:
    """A list of coded tokens for each row, empty if there is none; and the number of rows with more than `most` tokens."""
    lists = np.empty(len(first) + 1, np.int64)
    begins, ends = _split(text, first, end, np.frombuffer(separator, np.uint8), missing.text, missing.edges, lists)
    return _bags(text, begins, ends, lists, most, missing)


def list_bags(column: pa.Array, most: int | None, missing: Missing) -> tuple[pa.Array, int]:
    """As `bags`, for a large_list of large_string."""
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
    text, first, end = spans(pc.list_flatten(column))
    return _bags(text, first.copy(), end.copy(), np.concatenate([[0], np.cumsum(lengths)]), most, missing)
