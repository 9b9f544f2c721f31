"""Finds where the values of the used columns begin and end in JSON lines.

Compiled code scans plain lines: one object on each line, and no string with an escape. Every other line, well-formed or not, is left to
Python's json (dmoe.data.prepare.parse.json_block).

Shapes: L lines of a piece, C columns that are read, T items of lists.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dmoe.data.prepare.parse.json_grammar import (
    CLOSE_LIST,
    CLOSE_OBJECT,
    COLON,
    COMMA,
    DEEPEST,
    OPEN_LIST,
    OPEN_OBJECT,
    QUOTE,
    after_space,
    behind_any,
    scalar,
    string_end,
)
from dmoe.data.prepare.tokens.byte_words import same_bytes
from dmoe.data.prepare.tokens.texts import Texts, place_among, texts_of
from dmoe.processes.compiled import compiled

MOST_KEYS = 256
"""Number of keys of a line whose columns are remembered for the next line."""
SCALAR = -1


class Scanned(NamedTuple):
    """Positions of values in the text.

    Attributes:
        first, end: [C, L] span of each value; equal if it is missing.
        items: [C, L] number of items of a list; SCALAR if the value is not a list.
        item_at: [C, L] index of a list's first item in `item_first` and `item_end`.
        item_first, item_end: [T] spans of the items.
        begins, ends: [L] span of each line.
        plain: [L] whether the line was scanned.
    """

    first: NDArray[np.int32]
    end: NDArray[np.int32]
    items: NDArray[np.int32]
    item_at: NDArray[np.int32]
    item_first: NDArray[np.int32]
    item_end: NDArray[np.int32]
    begins: NDArray[np.int32]
    ends: NDArray[np.int32]
    plain: NDArray[np.bool_]


@compiled
def _scan(text: NDArray[np.uint8], keys: Texts, is_list: NDArray[np.bool_], longest: int, ascii_only: bool, found: Scanned) -> None:
    """Fills the arrays of `found`; a key that is not in `keys` is not used."""
    first, end, items, item_at, item_first, item_end, begins, ends, plain = found
    names, edges = keys
    columns = len(first)
    seen = np.full(columns, -1, np.int64)
    known_first, known_size = np.zeros(MOST_KEYS, np.int64), np.full(MOST_KEYS, -1, np.int64)
    known_column, closing = np.zeros(MOST_KEYS, np.int64), np.zeros(DEEPEST, np.uint8)
    begin, used = 0, 0
    for line in range(len(begins)):
        stop = begin
        while text[stop] != 10:
            stop += 1
        begins[line], ends[line] = begin, stop
        for column in range(columns):
            first[column, line] = end[column, line] = begin
            items[column, line] = SCALAR
        used_before, number = used, 0
        at = after_space(text, begin, stop)
        good = stop - begin <= longest and at < stop and text[at] == OPEN_OBJECT
        begin = stop + 1
        if good:
            at = after_space(text, at + 1, stop)
            if at < stop and text[at] == CLOSE_OBJECT:
                plain[line] = after_space(text, at + 1, stop) == stop
                continue
        while good:
            good = False
            at = after_space(text, at, stop)
            if at >= stop or text[at] != QUOTE:
                break
            key = at + 1
            at = string_end(text, key, stop, ascii_only)
            if at < 0:
                break
            size = at - key
            if number < MOST_KEYS and known_size[number] == size and same_bytes(text, key, text, known_first[number], size):
                column = known_column[number]
            else:
                column = place_among(text, key, size, names, edges)
                if number < MOST_KEYS:
                    known_first[number], known_size[number], known_column[number] = key, size, column
            number += 1
            at = after_space(text, at + 1, stop)
            if at >= stop or text[at] != COLON:
                break
            at = after_space(text, at + 1, stop)
            if at >= stop:
                break
            nested = text[at] == OPEN_LIST or text[at] == OPEN_OBJECT
            if column < 0:
                if nested:
                    at = behind_any(text, at, stop, ascii_only, closing)
                else:
                    _, _, at = scalar(text, at, stop, ascii_only)
            else:
                if seen[column] == line:
                    break
                seen[column] = line
                if not nested:
                    value_first, value_end, at = scalar(text, at, stop, ascii_only)
                    first[column, line], end[column, line] = value_first, value_end
                elif text[at] == OPEN_LIST and is_list[column]:
                    item_at[column, line] = used
                    at = after_space(text, at + 1, stop)
                    if at < stop and text[at] == CLOSE_LIST:
                        at += 1
                    else:
                        while True:
                            value_first, value_end, at = scalar(text, after_space(text, at, stop), stop, ascii_only)
                            if at < 0:
                                break
                            item_first[used], item_end[used] = value_first, value_end
                            used += 1
                            at = after_space(text, at, stop)
                            if at < stop and text[at] == COMMA:
                                at += 1
                                continue
                            at = at + 1 if at < stop and text[at] == CLOSE_LIST else -1
                            break
                    items[column, line] = used - item_at[column, line]
                else:
                    break
            if at < 0:
                break
            at = after_space(text, at, stop)
            if at < stop and text[at] == COMMA:
                at += 1
                good = True
                continue
            good = at < stop and text[at] == CLOSE_OBJECT and after_space(text, at + 1, stop) == stop
            break
        plain[line] = good
        if not good:
            used = used_before


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
    size, text = data.count(b"\n"), np.frombuffer(data, np.uint8)
    room = data.count(b",") + data.count(b"[") if lists else 0
    first, end, items, item_at = (np.empty((len(columns), size), np.int32) for _ in range(4))
    item_first, item_end, begins, ends = (np.empty(length, np.int32) for length in (room, room, size, size))
    found = Scanned(first, end, items, item_at, item_first, item_end, begins, ends, np.zeros(size, np.bool_))
    _scan(text, texts_of(columns), np.array([name in lists for name in columns], np.bool_), longest, ascii_only, found)
    return text, found
