"""Compiled functions that find the end of a JSON value (RFC 8259) in a line, for strings without escapes.

They return -1 for a value with an escape, and for text that is not JSON. With `ascii_only`, used if a piece is not UTF-8, they also
return -1 for bytes above 127.
"""

import numpy as np
from numpy.typing import NDArray

from dmoe.processes.compiled import compiled

QUOTE, BACKSLASH, COMMA, COLON = 34, 92, 44, 58
OPEN_LIST, CLOSE_LIST, OPEN_OBJECT, CLOSE_OBJECT = 91, 93, 123, 125
DEEPEST = 64
"""Most levels of nested lists and objects."""


@compiled
def after_space(text: NDArray[np.uint8], at: int, end: int) -> int:
    while at < end and (text[at] == 32 or text[at] == 9 or text[at] == 13):
        at += 1
    return at


@compiled
def string_end(text: NDArray[np.uint8], at: int, end: int, ascii_only: bool) -> int:
    """Position of the quote that closes the string whose first character is at `at`; -1 if there is an escape or no such quote."""
    while at < end:
        byte = text[np.uintp(at)]
        if byte == QUOTE:
            return at
        if byte == BACKSLASH or byte < 32 or (ascii_only and byte >= 128):
            return -1
        at += 1
    return -1


@compiled
def _digits_end(text: NDArray[np.uint8], at: int, end: int) -> int:
    while at < end and 48 <= text[at] <= 57:
        at += 1
    return at


@compiled
def _number_end(text: NDArray[np.uint8], at: int, end: int) -> int:
    """Position after a JSON number; -1 if there is none."""
    at += text[at] == 45
    begin = at
    at = _digits_end(text, at, end)
    if at == begin or (text[begin] == 48 and at > begin + 1):
        return -1
    if at < end and text[at] == 46:
        begin = at + 1
        at = _digits_end(text, begin, end)
        if at == begin:
            return -1
    if at < end and (text[at] == 101 or text[at] == 69):
        begin = at + 1
        if begin < end and (text[begin] == 43 or text[begin] == 45):
            begin += 1
        at = _digits_end(text, begin, end)
        if at == begin:
            return -1
    return at


@compiled
def _word_end(text: NDArray[np.uint8], at: int, end: int) -> int:
    """Position after true, false or null; -1 if there is none of them."""
    if at + 4 <= end:
        if text[at] == 116 and text[at + 1] == 114 and text[at + 2] == 117 and text[at + 3] == 101:
            return at + 4
        if text[at] == 110 and text[at + 1] == 117 and text[at + 2] == 108 and text[at + 3] == 108:
            return at + 4
    if at + 5 <= end and text[at] == 102 and text[at + 1] == 97 and text[at + 2] == 108 and text[at + 3] == 115 and text[at + 4] == 101:
        return at + 5
    return -1


@compiled
def scalar(text: NDArray[np.uint8], at: int, end: int, ascii_only: bool) -> tuple[int, int, int]:
    """(first, end, next) of a value that is no list and no object. first equals end for null. next is the position after the value, or
    -1 if there is no such value."""
    if at >= end:
        return 0, 0, -1
    byte = text[at]
    if byte == QUOTE:
        close = string_end(text, at + 1, end, ascii_only)
        return at + 1, close, close + 1 if close >= 0 else -1
    if byte == 45 or 48 <= byte <= 57:
        behind = _number_end(text, at, end)
        return at, behind, behind
    behind = _word_end(text, at, end)
    return at, at if byte == 110 else behind, behind


@compiled
def behind_any(text: NDArray[np.uint8], at: int, end: int, ascii_only: bool, closing: NDArray[np.uint8]) -> int:
    """Position after a list or an object with any contents; -1 if there is none, or if it is nested too deeply."""
    depth, value_next, first = 0, True, False
    while at < end:
        at = after_space(text, at, end)
        if at >= end:
            return -1
        byte = text[at]
        if value_next:
            if depth and byte == closing[depth - 1] and first:
                depth -= 1
                at += 1
                value_next = False
            else:
                if depth and closing[depth - 1] == CLOSE_OBJECT:
                    if byte != QUOTE:
                        return -1
                    at = string_end(text, at + 1, end, ascii_only)
                    if at < 0:
                        return -1
                    at = after_space(text, at + 1, end)
                    if at >= end or text[at] != COLON:
                        return -1
                    at = after_space(text, at + 1, end)
                    if at >= end:
                        return -1
                    byte = text[at]
                if byte in (OPEN_LIST, OPEN_OBJECT):
                    if depth == DEEPEST:
                        return -1
                    closing[depth] = CLOSE_LIST if byte == OPEN_LIST else CLOSE_OBJECT
                    depth += 1
                    at += 1
                    first = True
                    continue
                _, _, at = scalar(text, at, end, ascii_only)
                if at < 0:
                    return -1
                value_next = False
        elif byte == COMMA:
            at += 1
            value_next, first = True, False
        elif byte == closing[depth - 1]:
            depth -= 1
            at += 1
        else:
            return -1
        if depth == 0:
            return at
    return -1
