"""Compiled functions that find the end of a JSON value (RFC 8259) in a line, for strings without escapes.

They return -1 for a value with an escape, and for text that is not JSON. With `ascii_only`, used if a piece is not UTF-8, they also
return -1 for bytes above 127.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dmoe.data.prepare.tokens.byte_words import same_bytes

QUOTE, BACKSLASH, COMMA, COLON = 34, 92, 44, 58
OPEN_LIST, OPEN_OBJECT, CLOSE_OBJECT = 91, 123, 125
TO_CLOSE = 2
"""`]` and `}` are this far after `[` and `{`."""
DEEPEST = 64
"""Most levels of nested lists and objects."""
WORDS = tuple(np.frombuffer(word, np.uint8) for word in (b"true", b"false", b"null"))


@njit(nogil=True, cache=True)
def after_space(text: NDArray[np.uint8], at: int, end: int) -> int:
    while at < end and (text[at] == 32 or text[at] == 9 or text[at] == 13):
        at += 1
    return at


@njit(nogil=True, cache=True)
def _string_end(text: NDArray[np.uint8], at: int, end: int, ascii_only: bool) -> int:
    """Position of the quote that closes the string whose first character is at `at`; -1 if there is an escape or no such quote."""
    while at < end:
        byte = text[np.uintp(at)]
        if byte == QUOTE:
            return at
        if byte == BACKSLASH or byte < 32 or (ascii_only and byte >= 128):
            return -1
        at += 1
    return -1


@njit(nogil=True, cache=True)
def _digits_end(text: NDArray[np.uint8], at: int, end: int) -> int:
    """Position after one or more digits; -1 if there is none."""
    begin = at
    while at < end and 48 <= text[at] <= 57:
        at += 1
    return at if at > begin else -1


@njit(nogil=True, cache=True)
def _number_end(text: NDArray[np.uint8], at: int, end: int) -> int:
    """Position after a JSON number; -1 if there is none."""
    begin = at + (text[at] == 45)
    at = _digits_end(text, begin, end)
    if text[begin] == 48 and at > begin + 1:
        return -1
    if 0 <= at < end and text[at] == 46:
        at = _digits_end(text, at + 1, end)
    if 0 <= at < end and (text[at] == 101 or text[at] == 69):
        at += 1
        at = _digits_end(text, at + (at < end and (text[at] == 43 or text[at] == 45)), end)
    return at


@njit(nogil=True, cache=True)
def _word_end(text: NDArray[np.uint8], at: int, end: int) -> int:
    """Position after true, false or null; -1 if there is none of them."""
    for word in WORDS:
        if at + len(word) <= end and same_bytes(text, at, word, 0, len(word)):
            return at + len(word)
    return -1


@njit(nogil=True, cache=True)
def scalar(text: NDArray[np.uint8], at: int, end: int, ascii_only: bool) -> tuple[int, int, int]:
    """(first, end, next) of a value that is no list and no object. first equals end for null. next is the position after the value, or
    -1 if there is no such value."""
    if at >= end:
        return 0, 0, -1
    byte = text[at]
    if byte == QUOTE:
        close = _string_end(text, at + 1, end, ascii_only)
        return at + 1, close, close + 1 if close >= 0 else -1
    if byte == 45 or 48 <= byte <= 57:
        behind = _number_end(text, at, end)
        return at, behind, behind
    behind = _word_end(text, at, end)
    return at, at if byte == 110 else behind, behind


@njit(nogil=True, cache=True)
def key_and_value(text: NDArray[np.uint8], at: int, end: int, ascii_only: bool) -> tuple[int, int]:
    """(end of the key whose quote is at `at`, position of its value); the position is -1 if there is no key with a value."""
    close = _string_end(text, at + 1, end, ascii_only) if at < end and text[at] == QUOTE else -1
    if close < 0:
        return -1, -1
    at = after_space(text, close + 1, end)
    if at >= end or text[at] != COLON:
        return -1, -1
    at = after_space(text, at + 1, end)
    return close, at if at < end else -1


@njit(nogil=True, cache=True)
def behind_comma(text: NDArray[np.uint8], at: int, end: int, close: int) -> tuple[int, bool]:
    """(position after what follows a value: a comma and spaces, or the bracket `close`; whether it is the bracket). If neither follows,
    the position is -1."""
    at = after_space(text, at, end)
    if at < end and text[at] == COMMA:
        return after_space(text, at + 1, end), False
    return at + 1 if at < end and text[at] == close else -1, True


@njit(nogil=True, cache=True)
def behind_any(text: NDArray[np.uint8], at: int, end: int, ascii_only: bool) -> int:
    """Position after a value of any kind; -1 if there is none, or if it is nested too deeply."""
    if text[at] != OPEN_LIST and text[at] != OPEN_OBJECT:
        return scalar(text, at, end, ascii_only)[2]
    closing, depth = np.empty(DEEPEST, np.uint8), 0
    while True:
        if at < end and depth < DEEPEST and (text[at] == OPEN_LIST or text[at] == OPEN_OBJECT):
            closing[depth] = text[at] + TO_CLOSE
            depth += 1
            at = after_space(text, at + 1, end)
            closed = at < end and text[at] == closing[depth - 1]
            at += closed
        else:
            at = scalar(text, at, end, ascii_only)[2]
            if at < 0:
                return -1
            at, closed = behind_comma(text, at, end, closing[depth - 1])
        while closed:
            depth -= 1
            if at < 0 or depth == 0:
                return at
            at, closed = behind_comma(text, at, end, closing[depth - 1])
        if closing[depth - 1] == CLOSE_OBJECT:
            _, at = key_and_value(text, at, end, ascii_only)
            if at < 0:
                return -1
