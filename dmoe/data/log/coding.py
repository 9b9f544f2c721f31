"""Spans of a buffer -> a dictionary and codes, bags of them, and numbers: what encoding does once a row, compiled.

Shapes: N rows; spans are (first, end) in a buffer. Texts that mean "no value" are spans of the same buffer.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numba import njit
from numpy.typing import NDArray

from dmoe.data.log.words import hash_span, same_bytes

FEWEST_SLOTS = 1 << 10
NONE, NUMBER, OTHER = 0, 1, 2
"""What `numbers` found: no value, a number, or what only a full parser can tell."""
EXACT_DIGITS, EXACT_POWER = 1 << 53, 22
"""Integers up to 2^53 and powers of ten up to 10^22 are doubles, so one product or quotient of them is rounded once (Clinger 1990)."""
POWERS = np.array([float(f"1e{power}") for power in range(EXACT_POWER + 1)])


@dataclass(frozen=True)
class Missing:
    """The texts that mean "no value", beside the empty one: spans of the buffer."""

    first: NDArray[np.int32]
    end: NDArray[np.int32]

    @staticmethod
    def at(texts: list[bytes], place: int) -> "Missing":
        """Where the texts stand one after another from `place` on."""
        edges = place + np.cumsum([0, *map(len, texts)])
        return Missing(edges[:-1].astype(np.int32), edges[1:].astype(np.int32))


@njit(nogil=True, cache=True)
def _is_missing(text: NDArray[np.uint8], first: int, end: int, m_first: NDArray[np.int32], m_end: NDArray[np.int32]) -> bool:
    size = end - first
    if size == 0:
        return True
    for m in range(len(m_first)):  # noqa: SIM110 (numba has no any)
        if m_end[m] - m_first[m] == size and same_bytes(text, first, text, m_first[m], size):
            return True
    return False


@njit(nogil=True, cache=True)
def _code(
    text: NDArray[np.uint8],
    first: NDArray[np.int32],
    end: NDArray[np.int32],
    m_first: NDArray[np.int32],
    m_end: NDArray[np.int32],
    fewest: int,
    codes: NDArray[np.int32],
    code_first: NDArray[np.int32],
    code_end: NDArray[np.int32],
    hash_of: NDArray[np.uint64],
) -> int:
    """Numbers the distinct spans in the order in which they come, -1 those that are missing; how many there are."""
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
                if len(m_first) and _is_missing(text, at, end[i], m_first, m_end):
                    codes[i] = -1
                    break
                code_first[known], code_end[known], hash_of[known] = at, end[i], h
                codes[i] = known
                known += 1
                slots[slot] = known
                if 2 * known > len(slots):
                    slots = np.zeros(4 * len(slots), np.int32)
                    mask = np.uint64(len(slots) - 1)
                    for j in range(known):
                        slot = hash_of[j] & mask
                        while slots[slot] != 0:
                            slot = (slot + np.uint64(1)) & mask
                        slots[slot] = j + 1
                break
            there = code_first[code]
            if hash_of[code] == h and code_end[code] - there == size and (size <= 8 or same_bytes(text, at, text, there, size)):
                codes[i] = code
                break
            slot = (slot + np.uint64(1)) & mask
    return known


@njit(nogil=True, cache=True)
def _gather(text: NDArray[np.uint8], first: NDArray[np.int32], offsets: NDArray[np.int64], out: NDArray[np.uint8]) -> None:
    for i in range(len(first)):
        at = first[i]
        for to in range(offsets[i], offsets[i + 1]):
            out[to] = text[at]
            at += 1


def strings(text: NDArray[np.uint8], first: NDArray[np.int32], end: NDArray[np.int32]) -> pa.Array:
    """The spans as large_string, copied."""
    offsets = np.zeros(len(first) + 1, np.int64)
    np.cumsum(end - first, out=offsets[1:])
    data = np.empty(offsets[-1], np.uint8)
    _gather(text, first, offsets, data)
    return pa.Array.from_buffers(pa.large_string(), len(first), [None, pa.py_buffer(offsets), pa.py_buffer(data)])


def coded(text: NDArray[np.uint8], first: NDArray[np.int32], end: NDArray[np.int32], missing: Missing) -> pa.DictionaryArray:
    """The spans as a dictionary, in the order in which tokens come, and codes, null where missing."""
    size = len(first)
    codes, code_first, code_end = (np.empty(size, np.int32) for _ in range(3))
    known = _code(text, first, end, missing.first, missing.end, FEWEST_SLOTS, codes, code_first, code_end, np.empty(size, np.uint64))
    return dictionary(codes, strings(text, code_first[:known], code_end[:known]))


def dictionary(codes: NDArray[np.int32], tokens: pa.Array) -> pa.DictionaryArray:
    """Null where a code is -1."""
    null_N = codes < 0
    indices = pa.array(codes, mask=null_N) if null_N.any() else pa.array(codes)
    return pa.DictionaryArray.from_arrays(indices, tokens)


@njit(nogil=True, cache=True)
def _cut(
    text: NDArray[np.uint8],
    first: NDArray[np.int32],
    end: NDArray[np.int32],
    separator: NDArray[np.uint8],
    m_first: NDArray[np.int32],
    m_end: NDArray[np.int32],
    most: int,
    offsets: NDArray[np.int64],
) -> tuple[NDArray[np.int32], NDArray[np.int32], int]:
    """The tokens of every row, `most` at most, as spans; row i's are offsets[i] .. offsets[i + 1] - 1. And how many rows had more."""
    mark, width = separator[0], len(separator)
    room = len(first)
    for i in range(len(first)):
        for at in range(first[i], end[i]):
            room += text[at] == mark
    token_first, token_end = np.empty(room, np.int32), np.empty(room, np.int32)
    used, cut = 0, 0
    for i in range(len(first)):
        offsets[i] = used
        if _is_missing(text, first[i], end[i], m_first, m_end):
            continue
        begin, at, kept = first[i], first[i], 0
        while True:
            at_end = at >= end[i]
            if not at_end:
                found = text[at] == mark and at + width <= end[i]
                for j in range(1, width):
                    found = found and text[at + j] == separator[j]
                if not found:
                    at += 1
                    continue
            if not _is_missing(text, begin, at, m_first, m_end):
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


def bags(
    text: NDArray[np.uint8], first: NDArray[np.int32], end: NDArray[np.int32], separator: bytes, most: int | None, missing: Missing
) -> tuple[pa.Array, int]:
    """A list of coded tokens a row, empty where there is none; and how many rows had more than `most`."""
    offsets = np.empty(len(first) + 1, np.int64)
    limit = np.iinfo(np.int64).max if most is None else most
    begins, ends, cut = _cut(text, first, end, np.frombuffer(separator, np.uint8), missing.first, missing.end, limit, offsets)
    none = Missing.at([], 0)
    return pa.LargeListArray.from_arrays(pa.array(offsets), coded(text, begins, ends, none)), cut


@njit(nogil=True, cache=True)
def _numbers(
    text: NDArray[np.uint8],
    first: NDArray[np.int32],
    end: NDArray[np.int32],
    m_first: NDArray[np.int32],
    m_end: NDArray[np.int32],
    powers: NDArray[np.float64],
    value: NDArray[np.float64],
    found: NDArray[np.uint8],
) -> None:
    """[+-] digits [. digits] [e [+-] digits], where it is exact."""
    for i in range(len(first)):
        at, stop = np.int64(first[i]), np.int64(end[i])
        value[i] = 0.0
        if _is_missing(text, at, stop, m_first, m_end):
            found[i] = NONE
            continue
        found[i] = OTHER
        negative = text[at] == 45
        at += negative or text[at] == 43
        digits, power, seen, point = np.int64(0), np.int64(0), 0, False
        while at < stop and digits <= EXACT_DIGITS:
            byte = text[at]
            if 48 <= byte <= 57:
                digits = 10 * digits + np.int64(byte - 48)
                seen += 1
                power -= point
            elif byte == 46 and not point:
                point = True
            else:
                break
            at += 1
        if seen == 0 or digits > EXACT_DIGITS:
            continue
        if at < stop:
            if text[at] != 101 and text[at] != 69:
                continue
            at += 1
            less = at < stop and text[at] == 45
            at += less or (at < stop and text[at] == 43)
            if at == stop or stop - at > 4:
                continue
            exponent = np.int64(0)
            while at < stop and 48 <= text[at] <= 57:
                exponent = 10 * exponent + np.int64(text[at] - 48)
                at += 1
            if at < stop:
                continue
            power += -exponent if less else exponent
        if digits != 0 and abs(power) > EXACT_POWER:
            continue
        number = np.float64(digits)
        if digits != 0:
            number = number * powers[power] if power >= 0 else number / powers[-power]
        value[i] = -number if negative else number
        found[i] = NUMBER


def numbers(
    text: NDArray[np.uint8], first: NDArray[np.int32], end: NDArray[np.int32], missing: Missing
) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """(values [N], 0.0 where there is none; NONE, NUMBER or OTHER [N]), each as correctly rounded as the text's full parse."""
    value, found = np.empty(len(first)), np.empty(len(first), np.uint8)
    _numbers(text, first, end, missing.first, missing.end, POWERS, value, found)
    return value, found
