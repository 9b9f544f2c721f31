"""A piece of a log of JSON lines as a block of rows: one object a line, whose keys are the columns.

A value's token is what the line has: 1, 1.0 and "1" are the texts 1, 1.0 and 1, as in the CSV of the same log; true and false are those
texts. Python's json reads the lines: pyarrow.json rounds 1.50 and large integers to float64, takes NaN, and refuses a block for one line.
"""

from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dmoe.data.prepare.coding import NOTHING, Missing, coded, list_bags
from dmoe.data.prepare.rejects import BOM, MAX_LINE, Reject, shown
from dmoe.data.prepare.schema import Schema
from dmoe.data.prepare.source import MAX_ROW, File, json_object
from dmoe.data.prepare.spans import spans
from dmoe.data.prepare.text_block import unreadable
from dmoe.data.prepare.to_float import to_float
from dmoe.names import printable

BOOLEANS = {True: "true", False: "false"}
TEXTS = frozenset((str, type(None)))


class JsonBlock:
    """Rows of JSON lines; malformed lines are its rejects, and are no rows. Methods: see TextBlock."""

    def __init__(self, file: File, schema: Schema, piece: bytes, number: int) -> None:
        """
        Args:
            number: of the piece's first line.
        """
        self.rejects: list[Reject] = []
        self.booleans: frozenset[str] = frozenset()
        self._lists, self._missing = schema.lists, Missing([text.encode() for text in schema.missing])
        self._no_value = pa.array(["", *schema.missing], pa.large_string())
        rows: list[list[Any]] = []
        self._raw: list[bytes] = []
        places: list[int] = []
        lines = piece.split(b"\n")
        lines = lines if lines[-1] else lines[:-1]
        for place, line in enumerate(lines, start=number):
            found = self._row(line.removeprefix(BOM).removesuffix(b"\r"), file.used)
            if isinstance(found, tuple):
                self.rejects.append(Reject(place, *found, line[:MAX_LINE]))
                continue
            rows.append(found)
            self._raw.append(line[:MAX_LINE])
            places.append(place)
        self._values = {name: [row[at] for row in rows] for at, name in enumerate(file.used)}
        self._text: dict[str, pa.Array] = {}
        self.line, self.lines = np.array(places, np.int64), len(lines)

    def _row(self, line: bytes, used: tuple[str, ...]) -> list[Any] | tuple[str, str]:
        """The values of the columns that are used: text, a list of texts, or None; (kind, reason) of a malformed line."""
        if len(line) > MAX_ROW:
            return unreadable(line)
        try:
            pairs = json_object(line)
        except UnicodeDecodeError:
            return unreadable(line)
        except ValueError as error:
            return "json", str(error)
        values = dict(pairs)
        if len(values) < len(pairs):
            keys = [key for key, _ in pairs]
            if twice := [name for name in used if keys.count(name) > 1]:
                return "json", f"the key {shown(twice[0])} is there twice"
        row = [values.get(name) for name in used]
        if TEXTS.issuperset(map(type, row)):
            return row
        for place, (name, value) in enumerate(zip(used, row, strict=True)):
            if isinstance(value, bool):
                row[place] = BOOLEANS[value]
            elif isinstance(value, list):
                if name not in self._lists:
                    return "nested", f"{printable(name)} is a list, expected one value; pooling: sum or mean makes one of several"
                if any(isinstance(one, list | tuple) for one in value):
                    return (
                        "nested",
                        f"{printable(name)} holds a list or an object within its list, expected texts, numbers, true, false or null",
                    )
                row[place] = [BOOLEANS[one] if isinstance(one, bool) else one for one in value]
            elif isinstance(value, tuple):
                return "nested", f"{printable(name)} is an object, expected a text, a number, true, false or null"
        return row

    def raw(self, row: int) -> bytes:
        return self._raw[row]

    def value(self, name: str, row: int) -> str | None:
        value: str | None = self._column(name)[row].as_py()
        return value

    def tokens(self, name: str) -> pa.DictionaryArray:
        return coded(*spans(self._column(name)), NOTHING)

    def numbers(self, name: str) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        return to_float(self._column(name))

    def missing(self, name: str) -> NDArray[np.bool_]:
        return np.asarray(self._column(name).is_null().to_numpy(zero_copy_only=False))

    def bags(self, name: str, separator: str | None, most: int | None) -> tuple[pa.Array, int]:
        """A value that is no list is cut at the separator; without one it is a bag of itself."""
        no_value = self._no_values
        lists = [
            one if one is None or isinstance(one, list) else [] if one in no_value else one.split(separator) if separator else [one]
            for one in self._values[name]
        ]
        return list_bags(pa.array(lists, pa.large_list(pa.large_string())), most, self._missing)

    def timestamps(self, name: str) -> None:
        """JSON has none."""

    @cached_property
    def _no_values(self) -> frozenset[str]:
        return frozenset(self._no_value.to_pylist())

    def _column(self, name: str) -> pa.Array:
        """As text, null where it has no value."""
        if name not in self._text:
            column = pa.array(self._values[name], pa.large_string())
            self._text[name] = pc.if_else(pc.is_in(column, self._no_value), pa.scalar(None, column.type), column)
        return self._text[name]
