"""A piece of a text log -> where the fields of its rows begin and end.

A record is a row of N where it has the right number of fields. A field in quotes begins and ends with one, as RFC 4180 has it: delimiters
and line ends in it are text, two quotes are one. A quote within any other field is text. A byte order mark before a record is none of it.
Records end at a `\\n`, or `\\r\\n`, as dmoe.data.prepare.source.record_ends has it.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dmoe.data.prepare.parse.tokenizer_kernels import split_text
from dmoe.data.prepare.source.record_ends import NEWLINE, RETURN
from dmoe.data.prepare.tokens.byte_words import occurrences


@dataclass
class Spans:
    """The rows of a piece. `text` is the piece's bytes, quotes within fields made single.

    Attributes:
        first, end: [columns, N] of each field that is read, in `text`.
        line: [N] the place of the row's first line in the piece, from 0; `begins` and `ends` [N] are its bytes in the piece.
        bad: [records, 4] of the malformed ones: place, begin, end, and the number of fields; OPEN where a quote is wrong, UNREADABLE where
            the bytes are, HEADER where the fields are the columns' names.
    """

    text: NDArray[np.uint8]
    first: NDArray[np.int32]
    end: NDArray[np.int32]
    line: NDArray[np.int32]
    begins: NDArray[np.int32]
    ends: NDArray[np.int32]
    bad: NDArray[np.int32]
    lines: int


def split(piece: bytes, delimiter: bytes, quote: bytes, fields: list[int], names: list[bytes], longest: int) -> Spans:
    """
    Args:
        fields: of each field in a line, its place among the columns that are read; -1 where it is not read.
        names: of the fields in a header; a line of them is no row.
        longest: bytes of a line.
    """
    size = len(piece) + (not piece.endswith(b"\n"))
    text = np.empty(size, np.uint8)
    text[: len(piece)] = np.frombuffer(piece, np.uint8)
    text[len(piece) : size] = NEWLINE
    room, columns = occurrences(piece, b"\n") + 1, max(fields) + 1
    first, end = np.empty((columns, room), np.int32), np.empty((columns, room), np.int32)
    line, begins, ends, bad = np.empty(room, np.int32), np.empty(room, np.int32), np.empty(room, np.int32), np.empty((room, 4), np.int32)
    mark = delimiter[0]
    rows, lines, bads = split_text(
        text,
        size,
        np.uint8(mark),
        np.uint8(quote[0] if quote and quote in piece else mark),
        longest,
        _unreadable(piece),
        np.array(fields, np.int32),
        np.frombuffer(b"".join(names), np.uint8),
        np.cumsum([0, *map(len, names)]),
        first,
        end,
        line,
        begins,
        ends,
        bad,
    )
    return Spans(text, first[:, :rows], end[:, :rows], line[:rows], begins[:rows], ends[:rows], bad[:bads], lines)


def _unreadable(piece: bytes) -> NDArray[np.int64]:
    """The lines that are no UTF-8 text, or hold a byte 0, or a `\\r` that does not end them."""
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
