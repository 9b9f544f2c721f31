"""Dictionary-encodes spans of a buffer, and splits texts into bags of tokens, in compiled code.

Shapes: N rows. A span is (first, end) in a buffer.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dmoe.data.prepare.tokens.byte_words import fill_slots, find, hash_span, same_bytes
from dmoe.data.prepare.tokens.spans import Places, spans, strings
from dmoe.data.prepare.tokens.texts import NOTHING, Texts, is_missing
from dmoe.processes.compiled import compiled

FEWEST_SLOTS = 1 << 10
NO_LIMIT = 2**62


@compiled
def _code(
    text: NDArray[np.uint8],
    first: Places,
    end: Places,
    missing: Texts,
    fewest: int,
    codes: NDArray[np.int32],
    known_at: NDArray[np.uint64],
) -> int:
    """Numbers the distinct spans in the order of their first occurrence; -1 for missing ones. Returns the number of distinct spans. Sets
    known_at[code] to the (hash, first, end) of a span, side by side, so that a comparison waits for memory once."""
    slots = np.zeros(fewest, np.int32)
    mask = np.uint64(fewest - 1)
    known = 0
    none, edges = missing
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
                known_at[known, 0], known_at[known, 1], known_at[known, 2] = h, np.uint64(at), np.uint64(end[i])
                codes[i] = known
                known += 1
                slots[slot] = known
                if 2 * known > len(slots):
                    slots = np.zeros(4 * len(slots), np.int32)
                    mask = np.uint64(len(slots) - 1)
                    fill_slots(slots, known_at[:known, 0])
                break
            there = np.int64(known_at[code, 1])
            same = known_at[code, 0] == h and np.int64(known_at[code, 2]) - there == size
            if same and (size <= 8 or same_bytes(text, at, text, there, size)):
                codes[i] = code
                break
            slot = (slot + np.uint64(1)) & mask
    return known


def coded(text: NDArray[np.uint8], first: Places, end: Places, missing: Texts) -> pa.DictionaryArray:
    """Dictionary-encodes spans. Values are in the order of their first occurrence; the code of a missing value is null."""
    return dictionary(*_distinct(text, first, end, missing))


def _distinct(text: NDArray[np.uint8], first: Places, end: Places, missing: Texts) -> tuple[NDArray[np.int32], pa.Array]:
    """(code of each span, -1 if it is missing; the distinct spans in the order of their first occurrence)."""
    size = len(first)
    codes, known_at = np.empty(size, np.int32), np.empty((size, 3), np.uint64)
    known = _code(text, first, end, missing, FEWEST_SLOTS, codes, known_at)
    first_of, end_of = known_at[:known, 1:].T.astype(np.int64)
    return codes, strings(text, first_of, end_of)


def dictionary(codes: NDArray[np.int32], tokens: pa.Array) -> pa.DictionaryArray:
    """A DictionaryArray whose codes of -1 are null."""
    null_N = codes < 0
    indices = pa.array(codes, mask=null_N) if null_N.any() else pa.array(codes)
    return pa.DictionaryArray.from_arrays(indices, tokens)


@compiled
def _renumber(codes: NDArray[np.int32], code_of: NDArray[np.int32], first_of: NDArray[np.int32]) -> int:
    """Numbers the codes that are used in the order of their first occurrence, in place; -1 stays. Returns their number."""
    known = 0
    for i in range(len(codes)):
        old = codes[i]
        if old < 0:
            continue
        if code_of[old] < 0:
            code_of[old], first_of[known] = known, old
            known += 1
        codes[i] = code_of[old]
    return known


def is_text_coded(kind: pa.DataType) -> bool:
    return bool(pa.types.is_dictionary(kind) and (pa.types.is_string(kind.value_type) or pa.types.is_large_string(kind.value_type)))


def recoded(column: pa.DictionaryArray, missing: Texts) -> pa.DictionaryArray:
    """As `coded`, for texts that are dictionary-encoded already. Their dictionary may hold a text twice, and texts that no row has."""
    return dictionary(*_recoded(column, missing))


def _recoded(column: pa.DictionaryArray, missing: Texts) -> tuple[NDArray[np.int32], pa.Array]:
    codes = np.array(pc.fill_null(column.indices, -1) if column.null_count else column.indices, np.int32)
    code_of, first_of = np.full(len(column.dictionary), -1, np.int32), np.empty(len(column.dictionary), np.int32)
    used = column.dictionary.take(pa.array(first_of[: _renumber(codes, code_of, first_of)])).cast(pa.large_string())
    code_V, tokens = _distinct(*spans(used), missing)
    if len(tokens) < len(used):
        codes = np.append(code_V, np.int32(-1))[codes]
    return codes, tokens


@compiled
def _cut(
    text: NDArray[np.uint8],
    first: Places,
    end: Places,
    separator: NDArray[np.uint8],
    missing: Texts,
    most: int,
    offsets: NDArray[np.int64],
) -> tuple[NDArray[np.int32], NDArray[np.int32], int]:
    """Splits texts at the separator: (first, end) of each token, and the number of rows with more than `most` tokens, which are cut. The
    tokens of row i are offsets[i] .. offsets[i + 1] - 1."""
    none, edges = missing
    mark, width, room = separator[0], len(separator), len(first)
    for one in text:
        room += one == mark
    token_first, token_end = np.empty(room, np.int32), np.empty(room, np.int32)
    used, cut = 0, 0
    for i in range(len(first)):
        offsets[i] = used
        if is_missing(text, first[i], end[i], none, edges):
            continue
        begin, at, kept = np.int64(first[i]), np.int64(first[i]), 0
        while True:
            at = find(text, at, np.int64(end[i]), mark)
            at_end = at == end[i]
            if not at_end:
                found = at + width <= end[i]
                for j in range(1, width):
                    found = found and text[at + j] == separator[j]
                if not found:
                    at += 1
                    continue
            if not is_missing(text, begin, at, none, edges):
                if kept < most:
                    token_first[used], token_end[used] = begin, at
                    used += 1
                kept += 1
            if at_end:
                break
            at += width
            begin = at
        cut += kept > most
    offsets[len(first)] = used
    return token_first[:used], token_end[:used], cut


def bags(text: NDArray[np.uint8], first: Places, end: Places, separator: bytes, most: int | None, missing: Texts) -> tuple[pa.Array, int]:
    """A list of coded tokens for each row, empty if there is none; and the number of rows with more than `most` tokens."""
    offsets = np.empty(len(first) + 1, np.int64)
    limit = NO_LIMIT if most is None else most
    begins, ends, cut = _cut(text, first, end, np.frombuffer(separator, np.uint8), missing, limit, offsets)
    return pa.LargeListArray.from_arrays(pa.array(offsets), coded(text, begins, ends, NOTHING)), cut


@compiled
def _keep(codes: NDArray[np.int32], most: int, lists: NDArray[np.int64], offsets: NDArray[np.int64]) -> tuple[int, int]:
    """Removes missing tokens (code -1), and those beyond `most` in a list, in place; (number of tokens kept, lists with more than `most`).
    List i is tokens lists[i] .. lists[i + 1] - 1 before, and offsets[i] .. offsets[i + 1] - 1 after."""
    used, cut = 0, 0
    for i in range(len(lists) - 1):
        offsets[i], kept = used, 0
        for at in range(lists[i], lists[i + 1]):
            if codes[at] >= 0:
                if kept < most:
                    codes[used] = codes[at]
                    used += 1
                kept += 1
        cut += kept > most
    offsets[len(lists) - 1] = used
    return used, cut


def list_bags(column: pa.Array, most: int | None, missing: Texts) -> tuple[pa.Array, int]:
    """As `bags`, for a list of texts: of large_string, or dictionary-encoded."""
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
    lists = np.concatenate([[0], np.cumsum(lengths)])
    flat = pc.list_flatten(column)
    codes, tokens = _recoded(flat, missing) if is_text_coded(flat.type) else _distinct(*spans(flat), missing)
    offsets = np.empty(len(lists), np.int64)
    used, cut = _keep(codes, NO_LIMIT if most is None else most, lists, offsets)
    codes = codes[:used]
    if cut:
        # Only tokens that are kept may be in the dictionary, since distinct tokens are counted (--ids hash).
        kept = np.zeros(len(tokens), bool)
        kept[codes] = True
        codes, tokens = (np.cumsum(kept, dtype=np.int32) - np.int32(1))[codes], tokens.filter(pa.array(kept))
    return pa.LargeListArray.from_arrays(pa.array(offsets), pa.DictionaryArray.from_arrays(pa.array(codes), tokens)), cut
