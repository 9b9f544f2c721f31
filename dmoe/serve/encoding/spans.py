"""Raw values of rows as arrays, which compiled code can read.

Shapes: B rows, C columns read, N texts, K columns of integers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from typing import Any

import numpy as np
import pyarrow as pa
from numba import njit
from numpy.typing import NDArray

from dmoe.data.prepare.tokens.spans import spans
from dmoe.serve.encoding.quick_rows import NONE, NotSimple

SEPARATOR = "\x1f"
"""Put between texts. Rows with a text that contains it are left to the pipeline."""


@dataclass(frozen=True)
class Spans:
    """The values of a batch: texts as UTF-8 bytes, empty if missing, and columns of integers.

    Attributes:
        text: the bytes of all texts.
        first_N, end_N: text n is text[first_N[n]:end_N[n]].
        column_C: the text of column c in row r is number column_C[c] + r * step. Below 0, column c is column -1 - column_C[c] of integers.
        integer_KB, given_KB: integers, 0 if missing, and whether there is one.
    """

    text: NDArray[np.uint8]
    first_N: NDArray[np.int64]
    end_N: NDArray[np.int64]
    column_C: NDArray[np.int64]
    step: int
    integer_KB: NDArray[np.int64]
    given_KB: NDArray[np.bool_]


def spans_of(rows: pa.Table | Sequence[Mapping[str, Any]], names: Sequence[str], numeric: frozenset[str], kinds: dict[str, type]) -> Spans:
    """The values of the named columns.

    Args:
        numeric: the columns that may be given as integers.
        kinds: as for `columns_of`.

    Raises:
        NotSimple: a column is missing, or has other values than texts and integers, or both.
        UnicodeEncodeError: a text is no UTF-8.
        pa.ArrowInvalid: the texts of a table are too long.
    """
    return _of_table(rows, names, numeric) if isinstance(rows, pa.Table) else _of_rows(rows, names, numeric, kinds)


def _of_rows(rows: Sequence[Mapping[str, Any]], names: Sequence[str], numeric: frozenset[str], kinds: dict[str, type]) -> Spans:
    width, size = len(names), len(rows)
    try:
        # Row by row, which is the order in memory.
        values = list(chain.from_iterable(map(itemgetter(*names), rows)) if width > 1 else map(itemgetter(*names), rows))
    except KeyError:
        values = [row.get(name) for row in rows for name in names]
    column_C, step = np.arange(width), width
    integers: list[int] = []
    given: list[bool] = []
    texts = values
    if set(map(type, values)) != {str} or not all(kinds.setdefault(name, str) is str for name in names):
        texts, step = [], 1
        for place, name in enumerate(names):
            found = values[place::width]
            kind, whole = _kind(found, kinds.get(name))
            if kind is not None:
                kinds[name] = kind
            if kind is int and name in numeric:
                column_C[place] = -1 - len(integers) // size
                integers += found if whole else [0 if value is None else value for value in found]
                given += [True] * size if whole else [value is not None for value in found]
            else:
                column_C[place] = len(texts)
                if kind is int:
                    found = ["" if value is None else repr(value) for value in found]
                texts += found if whole or kind is int else [value or "" for value in found]
    # The last text has a separator behind it, too.
    texts.append("")
    text = np.frombuffer(SEPARATOR.join(texts).encode(), np.uint8)
    first_N, end_N = np.zeros(len(texts) - 1, np.int64), np.zeros(len(texts) - 1, np.int64)
    if _cut(text, ord(SEPARATOR), first_N, end_N) != len(end_N):
        raise NotSimple
    try:
        integer_KB = np.array(integers, np.int64).reshape(-1, size)
    except OverflowError:
        raise NotSimple from None
    return Spans(text, first_N, end_N, column_C, step, integer_KB, np.array(given, np.bool_).reshape(-1, size))


def _kind(values: list[Any], before: type | None) -> tuple[type | None, bool]:
    """The type of the values of a column, str or int, None if all are missing; and whether none is missing."""
    kinds = set(map(type, values))
    whole = NONE not in kinds
    kinds.discard(NONE)
    if not kinds:
        return before, False
    kind = kinds.pop()
    if kinds or kind not in (str, int) or before not in (None, kind):
        raise NotSimple
    return kind, whole


@njit(nogil=True, cache=True)
def _cut(text: NDArray[np.uint8], separator: int, first_N: NDArray[np.int64], end_N: NDArray[np.int64]) -> int:
    """Sets the spans before each separator, and returns the number of separators."""
    found = begin = 0
    for at in range(len(text)):
        if text[at] == separator:
            if found < len(end_N):
                first_N[found], end_N[found] = begin, at
            begin = at + 1
            found += 1
    return found


def _of_table(rows: pa.Table, names: Sequence[str], numeric: frozenset[str]) -> Spans:
    size, schema, columns = len(rows), rows.schema, rows.columns
    found = list(map(schema.get_field_index, names))
    if -1 in found:
        raise NotSimple
    # One call for all columns of a type costs less than a call for each.
    of_type: dict[tuple[pa.DataType, bool], list[int]] = {}
    for place, index in enumerate(found):
        kind = schema.field(index).type
        of_type.setdefault((kind, names[place] in numeric and pa.types.is_signed_integer(kind)), []).append(place)
    texts, integers, column_C = [], [], np.zeros(len(names), np.int64)
    for (kind, as_integers), places in of_type.items():
        text = kind.value_type if pa.types.is_dictionary(kind) else kind
        if not (pa.types.is_string(text) or pa.types.is_large_string(text) or pa.types.is_integer(kind)):
            raise NotSimple
        part = pa.concat_arrays([chunk for place in places for chunk in _chunks(columns[found[place]])])
        before, goal = (integers, pa.int64()) if as_integers else (texts, pa.large_string())
        first = sum(map(len, before))
        column_C[places] = np.arange(len(places)) * size + first if not as_integers else -1 - first // size - np.arange(len(places))
        before.append(part if part.type == goal else part.cast(goal))
    numbers = pa.concat_arrays(integers) if integers else pa.array([], pa.int64())
    given_KB = numbers.is_valid().to_numpy(zero_copy_only=False).reshape(-1, size)
    return Spans(
        *spans(pa.concat_arrays(texts) if texts else pa.array([], pa.large_string())),
        column_C,
        1,
        numbers.fill_null(0).to_numpy().reshape(-1, size),
        given_KB,
    )


def _chunks(column: pa.ChunkedArray) -> list[pa.Array]:
    # Several times as fast as the property `chunks`.
    found = [column.chunk(index) for index in range(column.num_chunks)]
    return [one.dictionary_decode() for one in found] if pa.types.is_dictionary(column.type) else found
