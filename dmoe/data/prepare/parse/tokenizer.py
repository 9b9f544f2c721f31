"""Finds where the fields of the rows of a text begin and end.

A record with the right number of fields is one of the N rows. A quoted field begins and ends with a quote (RFC 4180): delimiters and
line ends within it are text, and two quotes stand for one. A quote within any other field is text. A byte-order mark before a record is
skipped. A record ends at `\\n` or `\\r\\n` (dmoe.data.prepare.source.record_ends).
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dmoe.data.prepare.parse.tokenizer_kernels import split_text
from dmoe.data.prepare.source.record_ends import NEWLINE, RETURN
from dmoe.data.prepare.tokens.byte_words import occurrences
from dmoe.data.prepare.tokens.texts import texts_of


@dataclass
class Spans:
    """The rows of a piece.

    Attributes:
        text: the bytes of the piece, with doubled quotes within fields made single.
        first, end: [columns, N] span in `text` of each field that is read.
        line: [N] number of the row's first line in the piece, from 0.
        begins, ends: [N] span of the row in the piece.
        bad: [records, 4] malformed records: line, begin, end, and the number of fields; or instead of the number OPEN (a wrong quote),
            UNREADABLE (not text, or too long) or HEADER (the fields are the names of the columns).
    """

    text: NDArray[np.uint8]
    first: NDArray[np.int32]
    end: NDArray[np.int32]
    line: NDArray[np.int32]
    begins: NDArray[np.int32]
    ends: NDArray[np.int32]
    bad: NDArray[np.int32]
    lines: int


def split(piece: bytes, delimiter: bytes, quote: bytes, fields: list[int], names: tuple[str, ...], longest: int) -> Spans:
    """Finds the fields of a piece.

    Args:
        fields: for each field of a line, its index among the columns that are read; -1 if it is not read.
        names: the names of the fields. A line that consists of them is a header, not a row.
        longest: most bytes of a record.
    """
    size = len(piece) + (not piece.endswith(b"\n"))
    text = np.empty(size, np.uint8)
    text[: len(piece)] = np.frombuffer(piece, np.uint8)
    text[len(piece) : size] = NEWLINE
    room, columns = occurrences(piece, b"\n") + 1, max(fields) + 1
    shapes = (columns, room), (columns, room), room, room, room, (room, 4)
    first, end, line, begins, ends, bad = (np.empty(shape, np.int32) for shape in shapes)
    mark = delimiter[0]
    rows, lines, bads = split_text(
        text,
        size,
        np.uint8(mark),
        np.uint8(quote[0] if quote and quote in piece else mark),
        longest,
        _unreadable(piece),
        np.array(fields, np.int32),
        texts_of(names),
        (first, end, line, begins, ends, bad),
    )
    return Spans(text, first[:, :rows], end[:, :rows], line[:rows], begins[:rows], ends[:rows], bad[:bads], lines)


def _unreadable(piece: bytes) -> NDArray[np.int64]:
    """The numbers of the lines that are not UTF-8, hold a byte 0, or hold a `\\r` that is not at their end."""
    ascii_only = piece.isascii()
    if (ascii_only or _is_utf8(piece)) and b"\0" not in piece and (b"\r" not in piece or piece.count(b"\r") == piece.count(b"\r\n")):
        return np.empty(0, np.int64)
    text = np.frombuffer(piece, np.uint8)
    newlines = np.flatnonzero(text == NEWLINE)
    lone = (text == RETURN) & (np.append(text[1:], NEWLINE) != NEWLINE)
    found = set(np.searchsorted(newlines, np.flatnonzero(lone | (text == 0))).tolist())
    if not ascii_only:
        edges = [-1, *newlines.tolist(), len(piece)]
        for number in set(np.searchsorted(newlines, np.flatnonzero(text >= 0x80)).tolist()) - found:
            if not _is_utf8(piece[edges[number] + 1 : edges[number + 1]]):
                found.add(number)
    return np.array(sorted(found), np.int64)


def _is_utf8(text: bytes) -> bool:
    edges = pa.py_buffer(np.array([0, len(text)], np.int64))
    try:
        pa.Array.from_buffers(pa.large_string(), 1, [None, edges, pa.py_buffer(text)]).validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True
