"""A piece of a text log as a block of rows. Columns are converted when they are used."""

import csv
from functools import cached_property

import numpy as np
import pyarrow as pa

from dmoe.data.prepare.parse.span_block import SpanBlock
from dmoe.data.prepare.parse.tokenizer import split
from dmoe.data.prepare.parse.tokenizer_kernels import HEADER, OPEN, UNREADABLE
from dmoe.data.prepare.rejects import MAX_LINE, Reject, header_again
from dmoe.data.prepare.schema import Schema
from dmoe.data.prepare.source.log_files import MAX_ROW, File, quoting
from dmoe.data.prepare.tokens.dictionary_coding import bags


class TextBlock(SpanBlock):
    """Rows of a delimited text. Malformed lines are in `rejects`.

    Attributes:
        line: [N] 1-based number of the row's first line.
        lines: number of lines of the piece.
    """

    def __init__(self, file: File, schema: Schema, piece: bytes, number: int) -> None:
        """
        Args:
            number: of the piece's first line.
        """
        place_of = {name: place for place, name in enumerate(file.used)}
        fields = [place_of.get(name, -1) for name in file.columns]
        self._spans = split(piece, file.delimiter, schema.quote_bytes, fields, file.columns, MAX_ROW)
        super().__init__(file.used, self._spans.text, self._spans.first, self._spans.end, schema.missing)
        self._piece, self._schema, self._names, self._delimiter = piece, schema, file.columns, file.delimiter
        self.line = self._spans.line + np.int64(number)
        self.lines = self._spans.lines
        self.booleans: frozenset[str] = frozenset()
        self._number = number

    @cached_property
    def rejects(self) -> list[Reject]:
        found = []
        for place, begin, end, fields in self._spans.bad.tolist():
            line = self._piece[begin:end]
            found.append(Reject(self._number + place, *self._why(line, fields), line[:MAX_LINE]))
        return found

    def _why(self, line: bytes, fields: int) -> tuple[str, str]:
        if fields == UNREADABLE:
            return unreadable(line)
        if fields == OPEN:
            return "fields", f"a quote that is not closed within {MAX_ROW >> 20} MiB, or text after a closing one"
        if fields == HEADER:
            delimiter = self._delimiter.decode()
            again = header_again(next(csv.reader([line.decode()], delimiter=delimiter, **quoting(self._schema))), self._names)
            assert again
            return again
        return "fields", f"{fields} field{'s' * (fields != 1)}, expected {len(self._names)}"

    def raw(self, row: int) -> bytes:
        """The start of the row's text, at most MAX_LINE bytes."""
        return self._piece[self._spans.begins[row] : self._spans.ends[row]][:MAX_LINE]

    def bags(self, name: str, separator: str | None, most: int | None) -> tuple[pa.Array, int]:
        """A list of coded tokens for each row, empty if there is none; and the number of rows with more than `most` tokens."""
        assert separator, "the schema of a text has a separator for each bag"
        return bags(self._text, *self._of(name), separator.encode(), most, self._missing)


def unreadable(line: bytes) -> tuple[str, str]:
    """(kind, reason) of a line that is too long or is not text."""
    if len(line) > MAX_ROW:
        return "long", f"the row is longer than {MAX_ROW} bytes"
    try:
        line.decode()
    except UnicodeDecodeError as error:
        return "encoding", f"byte 0x{line[error.start]:02x} at column {error.start + 1}, expected UTF-8 text"
    at = line.find(b"\0")
    at = line.replace(b"\r\n", b"  ").index(b"\r") if at < 0 else at
    return "encoding", f"byte 0x{line[at]:02x} at column {at + 1}, expected text"
