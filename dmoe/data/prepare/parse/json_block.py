"""A piece of a log of JSON lines as a block of rows. Each line holds one object, and its keys are the columns.

The token of a value is its text in the line: 1, 1.0 and "1" have the tokens 1, 1.0 and 1, as in the CSV file of the same log; true and
false are these texts. Compiled code reads plain lines (dmoe.data.prepare.parse.json_scan); Python's json reads all others, such as those
with escapes. pyarrow.json is not used: it rounds 1.50 and large integers to float64, accepts NaN, and refuses a whole block because of
one bad line.

Shapes: N rows, T items of lists.
"""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dmoe.data.prepare.parse.json_scan import SCALAR, scan
from dmoe.data.prepare.parse.span_block import SpanBlock
from dmoe.data.prepare.parse.text_block import unreadable
from dmoe.data.prepare.rejects import BOM, MAX_LINE, Reject, shown
from dmoe.data.prepare.schema import Schema
from dmoe.data.prepare.source.log_files import MAX_ROW, File, json_object
from dmoe.data.prepare.tokens.dictionary_coding import bags, list_bags
from dmoe.data.prepare.tokens.spans import strings
from dmoe.names import printable

BOOLEANS = {True: "true", False: "false"}
TEXTS = frozenset((str, type(None)))


class JsonBlock(SpanBlock):
    """Rows of JSON lines. Malformed lines are in `rejects`. For the methods see TextBlock."""

    def __init__(self, file: File, schema: Schema, piece: bytes, number: int) -> None:
        """
        Args:
            number: of the piece's first line.
        """
        self.rejects: list[Reject] = []
        self.booleans: frozenset[str] = frozenset()
        self._lists = schema.lists
        text, found = scan(piece, file.used, frozenset(self._lists), MAX_ROW)
        kept, more = found.plain.copy(), _More(len(text), len(found.item_first))
        for place in np.flatnonzero(~found.plain).tolist():
            line = piece[found.begins[place] : found.ends[place]]
            row = self._row(line.removeprefix(BOM).removesuffix(b"\r"), file.used)
            if isinstance(row, tuple):
                self.rejects.append(Reject(number + place, *row, line[:MAX_LINE]))
                continue
            kept[place] = True
            for at, value in enumerate(row):
                if isinstance(value, list):
                    found.item_at[at, place], found.items[at, place] = more.items(value), len(value)
                else:
                    found.items[at, place] = SCALAR
                    found.first[at, place], found.end[at, place] = more.text(value)
        first, end, items, item_at = found.first, found.end, found.items, found.item_at
        if not kept.all():
            first, end, items, item_at = (np.ascontiguousarray(one[:, kept]) for one in (first, end, items, item_at))
        super().__init__(file.used, np.append(text, np.frombuffer(more.data, np.uint8)) if more.data else text, first, end, schema.missing)
        self._items, self._item_at = items, item_at
        self._item_first, self._item_end = more.behind(found.item_first, found.item_end)
        self._piece, self._begins, self._ends = piece, found.begins[kept], found.ends[kept]
        self.line, self.lines = np.flatnonzero(kept) + np.int64(number), len(kept)

    def _row(self, line: bytes, used: tuple[str, ...]) -> list[Any] | tuple[str, str]:
        """The values of the used columns: text, a list of texts, or None. For a malformed line, (kind, reason) instead."""
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
        return self._piece[self._begins[row] : self._ends[row]][:MAX_LINE]

    def bags(self, name: str, separator: str | None, most: int | None) -> tuple[pa.Array, int]:
        """As TextBlock.bags. A value that is not a list is split at the separator; without a separator it is one token."""
        place = self._place_of[name]
        (first_N, end_N), items_N = self._of(name), self._items[place]
        listed_N = items_N != SCALAR
        if separator and not listed_N.any():
            return bags(self._text, first_N, end_N, separator.encode(), most, self._missing)
        if separator and bool((end_N > first_N)[~listed_N].any()):
            column = pa.array([self._split(name, row, separator) for row in range(len(items_N))], pa.large_list(pa.large_string()))
            return list_bags(column, most, self._missing)
        size_N = np.where(listed_N, items_N, 1).astype(np.int64)
        offsets = np.concatenate([[0], np.cumsum(size_N)])
        first_T, end_T, listed_T = np.repeat(first_N, size_N), np.repeat(end_N, size_N), np.repeat(listed_N, size_N)
        # The items of row n are item_at[n] .. item_at[n] + size[n] - 1.
        at_T = (np.repeat(self._item_at[place] - offsets[:-1], size_N) + np.arange(offsets[-1]))[listed_T]
        first_T[listed_T], end_T[listed_T] = self._item_first[at_T], self._item_end[at_T]
        return list_bags(pa.LargeListArray.from_arrays(pa.array(offsets), strings(self._text, first_T, end_T)), most, self._missing)

    def _split(self, name: str, row: int, separator: str) -> list[str]:
        """The items of a list, or the parts of a text."""
        place = self._place_of[name]
        if (size := int(self._items[place, row])) == SCALAR:
            return (self.value(name, row) or "").split(separator)
        begin = int(self._item_at[place, row])
        return [self._text[self._item_first[at] : self._item_end[at]].tobytes().decode() for at in range(begin, begin + size)]


class _More:
    """Values that Python's json read. They are appended to the text and the items of the scanned lines."""

    def __init__(self, size: int, items: int) -> None:
        self.data, self._size, self._items = bytearray(), size, items
        self._spans: list[tuple[int, int]] = []

    def text(self, value: str | None) -> tuple[int, int]:
        """(first, end) of a text; empty for None."""
        begin = self._size + len(self.data)
        self.data += (value or "").encode()
        return begin, self._size + len(self.data)

    def items(self, values: list[str | None]) -> int:
        """Appends the items of a list; the index of the first."""
        place = self._items + len(self._spans)
        self._spans += [self.text(one) for one in values]
        return place

    def behind(self, first_T: NDArray[np.int32], end_T: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """The spans of the scanned items, followed by those of this object."""
        spans = np.array(self._spans, np.int32).reshape(-1, 2)
        return np.append(first_T, spans[:, 0]), np.append(end_T, spans[:, 1])
