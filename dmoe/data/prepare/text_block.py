"""A piece of a text log as a block of rows, whose columns are typed when they are asked for."""

import csv
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dmoe.data.prepare.coding import NONE, NUMBER, OTHER, Missing, bags, coded, numbers
from dmoe.data.prepare.rejects import MAX_LINE, Reject, header_again
from dmoe.data.prepare.schema import Schema
from dmoe.data.prepare.source import MAX_ROW, File, quoting
from dmoe.data.prepare.spans import strings
from dmoe.data.prepare.to_float import to_float
from dmoe.data.prepare.tokenizer import HEADER, OPEN, UNREADABLE, split


class TextBlock:
    """Rows of a text; malformed lines are its rejects, and are no rows.

    Attributes:
        line: [N] the row's 1-based line, its first.
        lines: of the piece.
    """

    def __init__(self, file: File, schema: Schema, piece: bytes, number: int) -> None:
        """
        Args:
            number: of the piece's first line.
        """
        self._piece, self._place_of = piece, {name: place for place, name in enumerate(file.used)}
        self._schema, self._names, self._delimiter = schema, file.columns, file.delimiter
        fields, names = [self._place_of.get(name, -1) for name in file.columns], [name.encode() for name in file.columns]
        self._spans = split(piece, file.delimiter, schema.quote_bytes, fields, names, MAX_ROW)
        self._no_value = frozenset(schema.missing)
        self._missing = Missing([text.encode() for text in schema.missing])
        self._tokens: dict[str, pa.DictionaryArray] = {}
        self._numbers: dict[str, tuple[NDArray[np.float64], NDArray[np.uint8]]] = {}
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
        """The row's line, its start."""
        return self._piece[self._spans.begins[row] : self._spans.ends[row]][:MAX_LINE]

    def value(self, name: str, row: int) -> str | None:
        """A field's text, None where missing."""
        first, end = self._of(name)
        text = self._spans.text[first[row] : end[row]].tobytes().decode()
        return None if text in self._no_value else text

    def tokens(self, name: str) -> pa.DictionaryArray:
        """A column as codes and the tokens in the order in which they come, null where missing."""
        if name not in self._tokens:
            self._tokens[name] = coded(self._spans.text, *self._of(name), self._missing)
        return self._tokens[name]

    def numbers(self, name: str) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """(values [N], 0.0 where there is none; whether each is a finite number [N])."""
        value_N, found_N = self._parsed(name)
        return value_N, found_N == NUMBER

    def missing(self, name: str) -> NDArray[np.bool_]:
        """Where a column has no value [N]."""
        return np.asarray(self._parsed(name)[1] == NONE)

    def _parsed(self, name: str) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
        """(values [N]; NONE, NUMBER, or OTHER where a text is no finite number [N])."""
        if name not in self._numbers:
            first, end = self._of(name)
            value_N, found_N = numbers(self._spans.text, first, end, self._missing)
            other = np.flatnonzero(found_N == OTHER)
            if len(other):
                value_N[other], given = to_float(strings(self._spans.text, first[other], end[other]))
                found_N[other[given]] = NUMBER
            self._numbers[name] = value_N, found_N
        return self._numbers[name]

    def bags(self, name: str, separator: str | None, most: int | None) -> tuple[pa.Array, int]:
        """A list of coded tokens a row, empty where there is none; and how many rows had more than `most`."""
        assert separator, "which a text's schema gives"
        return bags(self._spans.text, *self._of(name), separator.encode(), most, self._missing)

    def timestamps(self, name: str) -> None:
        """Text has none."""

    def _of(self, name: str) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        place = self._place_of[name]
        return self._spans.first[place], self._spans.end[place]


def unreadable(line: bytes) -> tuple[str, str]:
    """(kind, reason) of a line that is too long or no text."""
    if len(line) > MAX_ROW:
        return "long", f"the row is longer than {MAX_ROW} bytes"
    try:
        line.decode()
    except UnicodeDecodeError as error:
        return "encoding", f"byte 0x{line[error.start]:02x} at column {error.start + 1}, expected UTF-8 text"
    at = line.find(b"\0")
    at = line.replace(b"\r\n", b"  ").index(b"\r") if at < 0 else at
    return "encoding", f"byte 0x{line[at]:02x} at column {at + 1}, expected text"
