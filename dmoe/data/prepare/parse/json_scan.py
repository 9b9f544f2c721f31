"""Finds where the values of the used columns begin and end in JSON lines.

Compiled code scans plain lines: one object on each line, and no string with an escape. Every other line, well-formed or not, is left to
Python's json (dmoe.data.prepare.parse.json_block).

Shapes: L lines of a piece, C columns that are read, T items of lists.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dmoe.data.prepare.parse.json_grammar import (
    CLOSE_OBJECT,
    OPEN_LIST,
    OPEN_OBJECT,
    TO_CLOSE,
    after_space,
    behind_any,
    behind_comma,
    key_and_value,
    scalar,
)
from dmoe.data.prepare.tokens.byte_words import same_bytes

MOST_KEYS = 256
"""Number of keys of a line whose columns are remembered for the next line."""
SCALAR = -1
FIRST, END, ITEMS, ITEM_AT = range(4)
"""Of a value: its span in the text, empty if it is missing; the number of items of a list, or SCALAR; the index of a list's first item."""


@dataclass
class Scanned:
    """Positions of values in the text.

    Attributes:
        cells: [4, C, L] FIRST, END, ITEMS and ITEM_AT of each value.
        items: [2, T] first and end of each item of a list.
        lines: [2, L] first and end of each line.
        plain: [L] whether the line was scanned.
    """

    cells: NDArray[np.int32]
    items: NDArray[np.int32]
    lines: NDArray[np.int32]
    plain: NDArray[np.bool_]


@njit(nogil=True, cache=True)
def _column_of(
    text: NDArray[np.uint8],
    first: int,
    size: int,
    number: int,
    keys: NDArray[np.uint8],
    key_at: NDArray[np.int64],
    known: NDArray[np.int64],
) -> int:
    """The column of key `number` of a line; -1 if it is not used. `known` are (first, size, column) of the keys of the line before."""
    row = np.uintp(number % MOST_KEYS)
    if known[row, 1] != size or not same_bytes(text, first, text, known[row, 0], size):
        known[row, 0], known[row, 1], known[row, 2] = first, size, -1
        for column in range(len(key_at) - 1):
            if key_at[column + 1] - key_at[column] == size and same_bytes(text, first, keys, key_at[column], size):
                known[row, 2] = column
                break
    return known[row, 2]


@njit(nogil=True, cache=True)
def _scan_list(text: NDArray[np.uint8], at: int, end: int, ascii_only: bool, items: NDArray[np.int32], used: int) -> tuple[int, int]:
    """(position after a list of scalars, -1 if it is none; number of items so far)."""
    at = after_space(text, at + 1, end)
    if at < end and text[at] == OPEN_LIST + TO_CLOSE:
        return at + 1, used
    closed = False
    while at >= 0 and not closed:
        first, behind, at = scalar(text, at, end, ascii_only)
        if at >= 0:
            items[0, used], items[1, used] = first, behind
            used += 1
            at, closed = behind_comma(text, at, end, OPEN_LIST + TO_CLOSE)
    return at, used


@njit(nogil=True, cache=True)
def _scan_line(
    text: NDArray[np.uint8],
    at: int,
    end: int,
    keys: NDArray[np.uint8],
    key_at: NDArray[np.int64],
    is_list: NDArray[np.bool_],
    ascii_only: bool,
    known: NDArray[np.int64],
    seen: NDArray[np.int64],
    line: int,
    cells: NDArray[np.int32],
    items: NDArray[np.int32],
    used: int,
) -> int:
    """Fills the cells of a line; returns the number of items so far, or -1 if the line is not plain. `seen` is the last line that had
    each column."""
    for column in range(len(seen)):
        cells[FIRST, column, line] = cells[END, column, line] = at
        cells[ITEMS, column, line] = SCALAR
    at, number = after_space(text, at, end), 0
    if at >= end or text[at] != OPEN_OBJECT:
        return -1
    at = after_space(text, at + 1, end)
    closed = at < end and text[at] == CLOSE_OBJECT
    at += closed
    while not closed:
        key = at + 1
        key_end, at = key_and_value(text, at, end, ascii_only)
        if at < 0:
            return -1
        column = _column_of(text, key, key_end - key, number, keys, key_at, known)
        number += 1
        if column < 0:
            at = behind_any(text, at, end, ascii_only)
        elif seen[column] == line:
            return -1
        else:
            seen[column] = line
            if text[at] == OPEN_LIST and is_list[column]:
                cells[ITEM_AT, column, line] = used
                at, used = _scan_list(text, at, end, ascii_only, items, used)
                cells[ITEMS, column, line] = used - cells[ITEM_AT, column, line]
            else:
                cells[FIRST, column, line], cells[END, column, line], at = scalar(text, at, end, ascii_only)
        if at < 0:
            return -1
        at, closed = behind_comma(text, at, end, CLOSE_OBJECT)
    return used if at >= 0 and after_space(text, at, end) == end else -1


@njit(nogil=True, cache=True)
def _scan(
    text: NDArray[np.uint8],
    keys: NDArray[np.uint8],
    key_at: NDArray[np.int64],
    is_list: NDArray[np.bool_],
    longest: int,
    ascii_only: bool,
    cells: NDArray[np.int32],
    items: NDArray[np.int32],
    lines: NDArray[np.int32],
    plain: NDArray[np.bool_],
) -> None:
    """Fills the arrays of Scanned."""
    known, seen = np.full((MOST_KEYS, 3), -1, np.int64), np.full(len(key_at) - 1, -1, np.int64)
    begin, used = 0, 0
    for line in range(len(plain)):
        end = begin
        while text[end] != 10:
            end += 1
        lines[0, line], lines[1, line] = begin, end
        if end - begin <= longest:
            found = _scan_line(text, begin, end, keys, key_at, is_list, ascii_only, known, seen, line, cells, items, used)
            plain[line] = found >= 0
            used = max(found, used)
        begin = end + 1


def scan(piece: bytes, columns: tuple[str, ...], lists: frozenset[str], longest: int) -> tuple[NDArray[np.uint8], Scanned]:
    """Scans a piece.

    Args:
        lists: columns that may hold lists.
        longest: most bytes of a line.

    Returns:
        The bytes of the piece, which end with a line end, and the positions of the values in them.
    """
    data = piece if piece.endswith(b"\n") else piece + b"\n"
    try:
        piece.decode()
        ascii_only = False
    except UnicodeDecodeError:
        ascii_only = True
    text, size, names = np.frombuffer(data, np.uint8), data.count(b"\n"), [name.encode() for name in columns]
    room = data.count(b",") + data.count(b"[") if lists else 0
    cells, items, lines = (np.empty(shape, np.int32) for shape in ((4, len(columns), size), (2, room), (2, size)))
    found = Scanned(cells, items, lines, np.zeros(size, np.bool_))
    keys, key_at = np.frombuffer(b"".join(names), np.uint8), np.cumsum([0, *map(len, names)])
    is_list = np.array([name in lists for name in columns], np.bool_)
    _scan(text, keys, key_at, is_list, longest, ascii_only, found.cells, found.items, found.lines, found.plain)
    return text, found
