"""A batch of a parquet log as a block of rows. Columns are converted when they are used."""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dmoe.data.prepare.encode.text_numbers import to_float
from dmoe.data.prepare.rejects import MAX_LINE, Reject
from dmoe.data.prepare.schema import Dense, Schema
from dmoe.data.prepare.source.log_files import File
from dmoe.data.prepare.tokens.dictionary_coding import bags, coded, is_text_coded, list_bags, recoded
from dmoe.data.prepare.tokens.spans import spans
from dmoe.data.prepare.tokens.texts import NOTHING, texts_of
from dmoe.errors import UserError


class ParquetBlock:
    """The rows of a batch. For the methods see TextBlock. A column is converted to text with nulls, to lists of text, or, if it is the
    schema's time column, left as timestamps."""

    def __init__(self, file: File, schema: Schema, batch: pa.RecordBatch, number: int) -> None:
        times = {schema.time.column} if schema.time else set()
        pooled = {one.column or one.name for one in schema.categorical if one.pooling}
        others = {one.column or one.name for one in schema.stored if isinstance(one, Dense) or not one.pooling}
        single = (set(file.used) - pooled) | others | times
        self._path, self._single, self._times = file.path, single, times
        self._columns = {name: batch.column(name) for name in file.used}
        self._no_value = pa.array(["", *schema.missing], pa.large_string())
        self._missing = texts_of(schema.missing)
        self._bare_numbers = are_bare(schema.missing)
        self._text: dict[str, pa.Array] = {}
        self.line, self.lines = np.arange(number, number + batch.num_rows), batch.num_rows
        self.rejects: list[Reject] = []
        self.booleans = frozenset(name for name, column in self._columns.items() if pa.types.is_boolean(column.type))
        for name in file.used:
            if not (self._is_bare(name) or self._is_coded(name)):
                self._as_text(name)

    def _is_bare(self, name: str) -> bool:
        """Whether the numbers of a column can be taken directly, without converting it to text."""
        kind = self._columns[name].type
        return self._bare_numbers and (pa.types.is_integer(kind) or pa.types.is_float64(kind))

    def _is_coded(self, name: str) -> bool:
        """Whether a column is read as dictionary-encoded texts, without decoding it."""
        kind = self._columns[name].type
        return is_text_coded(kind) or (is_text_list(kind) and name not in self._single)

    def _as_text(self, name: str) -> pa.Array:
        if name not in self._text:
            column = as_text(self._path, name, self._columns[name], name in self._single, name in self._times)
            if pa.types.is_large_string(column.type):
                column = pc.if_else(pc.is_in(column, self._no_value), pa.scalar(None, column.type), column)
            self._text[name] = column
        return self._text[name]

    def raw(self, row: int) -> bytes:
        texts = {
            name: as_text(self._path, name, column.slice(row, 1), False, name in self._times) for name, column in self._columns.items()
        }
        return repr({name: column[0].as_py() for name, column in texts.items()}).encode()[:MAX_LINE]

    def value(self, name: str, row: int) -> str | None:
        value = self._as_text(name)[row].as_py()
        return None if value is None else str(value)

    def tokens(self, name: str) -> pa.DictionaryArray:
        if is_text_coded(self._columns[name].type):
            return recoded(self._columns[name], self._missing)
        return coded(*spans(self._as_text(name).cast(pa.large_string())), NOTHING)

    def numbers(self, name: str) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        return to_float(self._columns[name] if self._is_bare(name) else self._as_text(name))

    def missing(self, name: str) -> NDArray[np.bool_]:
        column = self._columns[name] if self._is_bare(name) else self._as_text(name)
        return np.asarray(column.is_null().to_numpy(zero_copy_only=False))

    def timestamps(self, name: str) -> pa.Array | None:
        column = self._columns[name] if self._is_bare(name) else self._as_text(name)
        return column if pa.types.is_timestamp(column.type) else None

    def bags(self, name: str, separator: str | None, most: int | None) -> tuple[pa.Array, int]:
        if self._is_coded(name) and is_text_list(self._columns[name].type):
            return list_bags(self._columns[name], most, self._missing)
        column = self._as_text(name)
        if pa.types.is_large_list(column.type):
            return list_bags(column, most, self._missing)
        return bags(*spans(column.cast(pa.large_string())), (separator or "|").encode(), most, self._missing)


def is_text_list(kind: pa.DataType) -> bool:
    """Whether a type is a list of dictionary-encoded texts."""
    return (pa.types.is_list(kind) or pa.types.is_large_list(kind)) and is_text_coded(kind.value_type)


def are_bare(missing: Iterable[str]) -> bool:
    """Whether no text that means "no value" is a number, so that missing numbers can be found without converting to text."""
    return not any(_is_number(text) for text in missing)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def as_text(path: str, name: str, column: pa.Array, single: bool, time: bool) -> pa.Array:
    """A parquet column as text with nulls; a column of lists as lists of text; with `time`, timestamps unchanged.

    Raises:
        UserError: the type cannot be read as text, or, with `single`, the column holds lists.
    """
    kind = column.type
    try:
        if pa.types.is_dictionary(kind):
            column, kind = column.dictionary_decode(), kind.value_type
        if pa.types.is_list(kind) or pa.types.is_large_list(kind):
            if single:
                raise UserError(f"{path}: column '{name}' is {kind}; say how its values become one: pooling: sum or mean")
            return column.cast(pa.large_list(pa.large_string()))
        if time and pa.types.is_timestamp(kind):
            return column
        if pa.types.is_boolean(kind):
            return column.cast(pa.int8()).cast(pa.large_string())
        return column.cast(pa.large_string())
    except (pa.ArrowException, NotImplementedError):
        raise UserError(f"{path}: column '{name}' is {str(kind)[:80]}, which cannot be read as text") from None
