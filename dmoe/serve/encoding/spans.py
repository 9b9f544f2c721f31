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


MOST = float(1 << 53)
"""Larger integers beside missing ones are left to the pipeline."""


@dataclass(frozen=True)
class Spans:
    """The values of a batch: texts as UTF-8 bytes, empty if missing, and columns of integers.

    Attributes:
        text: the bytes of all texts.
        first_N, end_N: text n is text[first_N[n]:end_N[n]].
        column_C: the text of column c in row r is number column_C[c] + r * step_C[c]. Below 0, column c is
            column -1 - column_C[c] of integers.
        integer_KB, given_KB: integers, 0 if missing, and whether there is one.
    """

    text: NDArray[np.uint8]
    first_N: NDArray[np.int64]
    end_N: NDArray[np.int64]
    column_C: NDArray[np.int64]
    step_C: NDArray[np.int64]
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
    size, place_of = len(rows), {name: place for place, name in enumerate(names)}
    column_C, step_C = np.zeros(len(names), np.int64), np.zeros(len(names), np.int64)
    texts: list[str] = []
    integers: list[NDArray[np.int64]] = []
    given: list[NDArray[np.bool_]] = []

    def add(values: list[Any], some: list[str], kind: type, whole: bool) -> None:
        """Adds the columns `some`, whose values are given row by row."""
        places, width = [place_of[name] for name in some], len(some)
        if kind is int and numeric.issuperset(some):
            column_C[places] = -1 - np.arange(width) - sum(map(len, integers))
            try:
                # A missing value becomes NaN. Of larger numbers than float64 holds, it is enough that they are large.
                found = np.array(values, np.int64 if whole else np.float64).reshape(size, width).T
            except OverflowError:
                raise NotSimple from None
            there = np.ones(found.shape, np.bool_) if whole else ~np.isnan(found)
            if not whole and (np.abs(found) > MOST).any():
                raise NotSimple
            integers.append(np.where(there, found, 0).astype(np.int64))
            given.append(there)
            return
        column_C[places], step_C[places] = np.arange(width) + len(texts), width
        if kind is int:
            texts.extend("" if value is None else repr(value) for value in values)
        else:
            texts.extend(values if whole else [value or "" for value in values])

    # Columns of one type are read together, row by row, which is the order in memory.
    for some in ([name for name in names if name not in numeric], [name for name in names if name in numeric]):
        values = _values(rows, some)
        try:
            kind, whole = _kind(values, {kinds[name] for name in some if name in kinds})
        except NotSimple:
            for place, name in enumerate(some):
                one = values[place :: len(some)]
                kind, whole = _kind(one, {kinds[name]} if name in kinds else set())
                if kind is not None:
                    kinds[name] = kind
                add(one, [name], kind or str, whole)
        else:
            if kind is not None:
                kinds |= dict.fromkeys(some, kind)
            add(values, some, kind or str, whole)
    # The last text has a separator behind it, too.
    texts.append("")
    text = np.frombuffer(SEPARATOR.join(texts).encode(), np.uint8)
    first_N, end_N = np.zeros(len(texts) - 1, np.int64), np.zeros(len(texts) - 1, np.int64)
    if _cut(text, ord(SEPARATOR), first_N, end_N) != len(end_N):
        raise NotSimple
    integer_KB = np.concatenate(integers) if integers else np.zeros((0, size), np.int64)
    given_KB = np.concatenate(given) if given else np.zeros((0, size), np.bool_)
    return Spans(text, first_N, end_N, column_C, step_C, np.ascontiguousarray(integer_KB), np.ascontiguousarray(given_KB))


def _values(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[Any]:
    """The values of the named columns, row by row; None if absent."""
    if len(names) > 1:
        try:
            return list(chain.from_iterable(map(itemgetter(*names), rows)))
        except KeyError:
            pass
    return list(chain.from_iterable(map(row.get, names) for row in rows))


def _kind(values: list[Any], before: set[type]) -> tuple[type | None, bool]:
    """The type of values, str or int, None if all are missing; and whether none is missing.

    Args:
        before: the types of the values of the same columns in earlier rows.
    """
    kinds = set(map(type, values))
    whole = NONE not in kinds
    kinds = (kinds | before) - {NONE}
    if len(kinds) > 1 or not kinds <= {str, int}:
        raise NotSimple
    return (kinds.pop() if kinds else None), whole


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
    texts: list[pa.Array] = []
    integers: list[pa.Array] = []
    column_C = np.zeros(len(names), np.int64)
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
        np.ones(len(names), np.int64),
        numbers.fill_null(0).to_numpy().reshape(-1, size),
        given_KB,
    )


def _chunks(column: pa.ChunkedArray) -> list[pa.Array]:
    # Several times as fast as the property `chunks`.
    found = [column.chunk(index) for index in range(column.num_chunks)]
    return [one.dictionary_decode() for one in found] if pa.types.is_dictionary(column.type) else found
