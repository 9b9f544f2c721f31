"""Fast paths from raw rows to the features that `text_cells` does not encode: bags, numbers with a fraction, crosses and times. Results
of known values are cached, and unknown values are parsed directly.

Rows that are not simple, such as a column with both texts and numbers, or a malformed value, raise NotSimple. The caller then uses the
preprocessing pipeline, which either encodes the rows or says what is wrong. Both paths give the same result.

Shapes: B rows, I numeric features, F categorical features.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dmoe.data.dataset.manifest import MISSING_ID
from dmoe.data.dataset.reading.bags import Bags
from dmoe.data.prepare.parse.parquet_block import are_bare
from dmoe.data.prepare.schema import Categorical, Dense
from dmoe.data.prepare.tokens.buckets import Buckets, tokens_of
from dmoe.data.prepare.tokens.coded_column import TYPES
from dmoe.data.prepare.tokens.token_columns import transformed
from dmoe.data.prepare.tokens.token_ids import Ids

KEPT = 1 << 16
"""Largest number of cached values for a feature; a full cache is cleared."""
NONE = type(None)
NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?")
LONGEST = {"hex": 8, "int": 400}
LARGEST = 2**63 - 1
PLAIN = (str, int, float, list)


class NotSimple(Exception):
    """These rows must be encoded by the pipeline."""


class Column:
    """The values of a raw column, which are None or of one type in PLAIN, and this type.

    Args:
        before: the type of the values in earlier rows, if any. The meaning of a value depends on the types in the whole column.

    Raises:
        NotSimple: the values have another type, or several.
    """

    def __init__(self, values: Sequence[Any], before: type | None = None) -> None:
        kinds = set(map(type, values))
        kinds.discard(NONE)
        kind: type = kinds.pop() if kinds else before or str
        if kinds or kind not in PLAIN or before not in (None, kind):
            raise NotSimple
        self.values, self.kind = values, kind


def columns_of(rows: pa.Table | Sequence[Mapping[str, Any]], names: Sequence[str], kinds: dict[str, type]) -> dict[str, Column]:
    """Splits rows into columns.

    Args:
        kinds: column -> type of its values in earlier rows; updated with those of these rows.

    Raises:
        NotSimple: a column is missing, or has no simple type.
    """
    found = {}
    if isinstance(rows, pa.Table):
        every: Iterable[Sequence[Any]] = [_of_table(rows, name) for name in names]
    else:
        every = _of_rows(rows, names)
    for name, values in zip(names, every, strict=True):
        found[name] = column = Column(values, kinds.get(name))
        if any(value is not None for value in values):
            kinds[name] = column.kind
    return found


def _of_rows(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Iterable[Sequence[Any]]:
    """The values of each column, read row by row, which is the order in memory."""
    if len(names) > 1:
        try:
            return zip(*map(itemgetter(*names), rows), strict=True)
        except KeyError:
            pass
    return [[row.get(name) for row in rows] for name in names]


def _of_table(rows: pa.Table, name: str) -> list[Any]:
    if rows.schema.get_field_index(name) < 0:
        raise NotSimple
    column = rows.column(name)
    kind = column.type
    text = kind.value_type if pa.types.is_list(kind) else kind
    if not (pa.types.is_string(text) or pa.types.is_large_string(text) or pa.types.is_integer(kind) or pa.types.is_float64(kind)):
        raise NotSimple
    values: list[Any] = column.to_pylist()
    # In a table, a NaN is an invalid number; in a Python row, it is a missing value.
    if pa.types.is_float64(kind) and any(value != value for value in values):
        raise NotSimple
    return values


class Kept(dict[Any, Any]):
    """A cache: value -> its id or number. Unknown values are computed by one call of `learn`.

    Args:
        learn: distinct values that are not None -> their ids or numbers, in order.
        missing: the id or number for None.
    """

    def __init__(self, learn: Callable[[list[Any]], Iterable[Any]], missing: int | float) -> None:
        super().__init__({None: missing})
        self.learn, self.missing, self.dtype = learn, missing, np.float32 if isinstance(missing, float) else np.int32

    def of(self, values: Sequence[Any]) -> NDArray[Any]:
        try:
            return np.fromiter(map(self.__getitem__, values), self.dtype, len(values))
        except KeyError:
            pass
        # Threads share this dictionary: another one may clear it at any time, so the answer is made of what was seen here.
        distinct = dict.fromkeys(values)
        found = {value: known for value in distinct if (known := self.get(value)) is not None} | {None: self.missing}
        unknown = [value for value in distinct if value not in found]
        learned = dict(zip(unknown, self.learn(unknown), strict=True))
        if len(self) + len(learned) > KEPT:
            self.clear()
            self[None] = self.missing
        self.update(learned)
        found |= learned
        return np.fromiter((found[value] for value in values), self.dtype, len(values))


class QuickBags:
    """Ids of a feature whose column holds several tokens in a row."""

    def __init__(self, one: Categorical, ids: Ids, missing: frozenset[str]) -> None:
        self.names, self.type, self.ids, self.missing = [one.column or one.name], one.type, ids, missing
        self.separator, self.most = one.separator or "|", one.max_values
        self._kept = Kept(self._learn, MISSING_ID)

    def bags(self, columns: Mapping[str, Column]) -> Bags:
        """The ids of a multi-valued feature. A row without tokens has the missing id."""
        column = columns[self.names[0]]
        if column.kind is str:
            rows = [[] if text is None or text in self.missing else text.split(self.separator) for text in column.values]
        elif column.kind is list:
            rows = [row or [] for row in column.values]
            if not {type(one) for row in rows for one in row} <= {str, NONE}:
                raise NotSimple
        else:
            raise NotSimple
        kept = [[one for one in row if one is not None and one not in self.missing][: self.most] or [None] for row in rows]
        values = self._kept.of([one for row in kept for one in row])
        return Bags(values, np.concatenate([[0], np.cumsum([len(row) for row in kept])]))

    def _learn(self, texts: list[str]) -> list[int]:
        """The ids of texts that are not missing."""
        if self.type == "string":
            tokens = pa.array([text.encode() for text in texts], TYPES["string"])
        else:
            tokens = pa.array(_whole(texts, self.type), TYPES[self.type])
        found: list[int] = self.ids.look_up(tokens).tolist()
        return found


def _whole(texts: Sequence[str], kind: str) -> list[int]:
    """Parses texts of ASCII digits, of kind hex or int."""
    digits = texts if kind == "hex" else [text.removeprefix("-") for text in texts]
    # int() also accepts spaces and underscores, which are not alphanumeric.
    if not (all(map(str.isalnum, digits)) and all(map(str.isascii, digits))) or max(map(len, texts), default=0) > LONGEST[kind]:
        raise NotSimple
    try:
        numbers = [int(text, 16) for text in texts] if kind == "hex" else list(map(int, texts))
    except ValueError:
        raise NotSimple from None
    if numbers and max(max(numbers), -min(numbers)) > LARGEST:
        raise NotSimple
    return numbers


class _Numbers:
    """Parses a numeric column."""

    def __init__(self, column: str, missing: frozenset[str]) -> None:
        self.column, self.missing, self.bare = column, missing, are_bare(missing)

    def parsed(self, values: list[Any]) -> NDArray[np.float64]:
        """Texts and integers as numbers; NaN if the text means a missing value."""
        texts = [str(value) for value in values]
        present = [text for text in texts if text not in self.missing]
        if not all(map(NUMBER.fullmatch, present)):
            raise NotSimple
        numbers = iter([float(text) for text in present])
        found = np.array([np.nan if text in self.missing else next(numbers) for text in texts], np.float64)
        if np.isinf(found).any():
            raise NotSimple
        return found

    def floats(self, column: Column) -> NDArray[np.float64]:
        """A column of floats; NaN if missing."""
        if not self.bare:
            raise NotSimple
        found_B = np.array([np.nan if value is None else value for value in column.values], np.float64)
        if np.isinf(found_B).any():
            raise NotSimple
        return found_B


class _OfNumbers(ABC):
    """A feature of one numeric column. Results for texts and integers are cached; floats rarely repeat, so they are always computed."""

    def __init__(self, numbers: _Numbers, missing: int | float) -> None:
        self.numbers, self.names = numbers, [numbers.column]
        self._kept = {kind: Kept(lambda values: self._made(self.numbers.parsed(values)).tolist(), missing) for kind in (str, int)}

    def of(self, columns: Mapping[str, Column]) -> NDArray[Any]:
        column = columns[self.numbers.column]
        if column.kind in self._kept:
            return self._kept[column.kind].of(column.values)
        if column.kind is not float:
            raise NotSimple
        return self._made(self.numbers.floats(column))

    @abstractmethod
    def _made(self, value_B: NDArray[np.float64]) -> NDArray[Any]:
        """Computes the feature from numbers, which are NaN if missing."""


class QuickDense(_OfNumbers):
    def __init__(self, one: Dense, missing: frozenset[str], moments: tuple[float, float] | None) -> None:
        super().__init__(_Numbers(one.column or one.name, missing), 0.0)
        self.transform, self.moments = one.transform, moments

    def _made(self, value_B: NDArray[np.float64]) -> NDArray[np.float32]:
        given_B = ~np.isnan(value_B)
        found_B = transformed(np.where(given_B, value_B, 0.0), self.transform, self.moments)
        return np.where(given_B, found_B, np.float32(0))


class QuickBucket(_OfNumbers):
    def __init__(self, one: Categorical, missing: frozenset[str], buckets: Buckets, ids: Ids) -> None:
        super().__init__(_Numbers(one.column or one.name, missing), MISSING_ID)
        self.buckets, self.type, self.ids = buckets, one.type, ids
        self._id_of = Kept(lambda numbers: self.ids.look_up(tokens_of(np.array(numbers, np.int64), self.type)).tolist(), MISSING_ID)

    def _made(self, value_B: NDArray[np.float64]) -> NDArray[np.int32]:
        given_B = ~np.isnan(value_B)
        number_B = self.buckets.numbers(np.where(given_B, value_B, 0.0))
        return self._id_of.of([number if given else None for number, given in zip(number_B.tolist(), given_B.tolist(), strict=True)])


class QuickOther:
    """A cross or a part of the time. The pipeline encodes each distinct combination of values once.

    Args:
        names: the columns that the feature reads.
        encode: rows -> ids, by the pipeline.
    """

    def __init__(self, names: Sequence[str], encode: Callable[[list[dict[str, Any]]], list[int]]) -> None:
        self.names, self.encode = list(names), encode
        self._kept: dict[tuple[type, ...], Kept] = {}

    def of(self, columns: Mapping[str, Column]) -> NDArray[np.int32]:
        read = [columns[name] for name in self.names]
        # One cache for each combination of types: 1 and 1.0 are the same dict key, but different texts.
        kinds = tuple(column.kind for column in read)
        if list in kinds or len(self._kept) > len(PLAIN) ** 2:
            raise NotSimple
        kept = self._kept.setdefault(kinds, Kept(self._learn, MISSING_ID))
        # NaN cannot be a key, because it is not equal to itself.
        values = [[None if one != one else one for one in column.values] if column.kind is float else column.values for column in read]
        return kept.of(list(zip(*values, strict=True)))

    def _learn(self, rows: list[tuple[Any, ...]]) -> list[int]:
        return self.encode([dict(zip(self.names, row, strict=True)) for row in rows])
