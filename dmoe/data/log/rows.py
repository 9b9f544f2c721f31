"""A piece of a log as a block of rows: what a text's lines or a parquet file's batch hold, typed when it is asked for."""

from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dmoe.data.log.schema import Schema
from dmoe.data.log.source import File
from dmoe.data.log.text_block import TextBlock
from dmoe.data.log.to_float import to_float
from dmoe.data.rejects import MAX_LINE, Reject
from dmoe.errors import UserError


class Block(Protocol):
    """N rows; `line` [N] is each one's 1-based line, or row of a parquet file. Methods: see TextBlock."""

    line: NDArray[np.int64]
    lines: int

    @property
    def rejects(self) -> list[Reject]: ...
    def raw(self, row: int) -> bytes: ...
    def value(self, name: str, row: int) -> str | None: ...
    def tokens(self, name: str) -> pa.DictionaryArray: ...
    def numbers(self, name: str) -> tuple[NDArray[np.float64], NDArray[np.bool_]]: ...
    def missing(self, name: str) -> NDArray[np.bool_]: ...
    def bags(self, name: str, separator: str, most: int | None) -> tuple[pa.Array, int]: ...
    def timestamps(self, name: str) -> pa.Array | None: ...


def read_piece(file: File, schema: Schema, piece: Any, number: int) -> Block:
    """The rows of a piece (dmoe.data.log.source.pieces), `number` that of its first line or row."""
    return (ParquetBlock if schema.format == "parquet" else TextBlock)(file, schema, piece, number)


class ParquetBlock:
    """The rows of a batch. A column is text, null where it has no value, a list of such, or times where the schema reads them so."""

    def __init__(self, file: File, schema: Schema, batch: pa.RecordBatch, number: int) -> None:
        times = {schema.time.column} if schema.time else set()
        pooled = {one.column or one.name for one in schema.categorical if one.pooling}
        others = {one.column or one.name for one in schema.dense} | {
            one.column or one.name for one in schema.categorical if not one.pooling
        }
        single = (set(file.used) - pooled) | others | times
        self._columns = {name: _as_text(file.path, name, batch.column(name), name in single, name in times) for name in file.used}
        self._missing = pa.array(["", *schema.missing], pa.large_string())
        self._text = {name: self._null_where_missing(column) for name, column in self._columns.items()}
        self.line, self.lines = np.arange(number, number + batch.num_rows), batch.num_rows
        self.rejects: list[Reject] = []

    def _null_where_missing(self, column: pa.Array) -> pa.Array:
        if not pa.types.is_large_string(column.type):
            return column
        return pc.if_else(pc.is_in(column, self._missing), pa.scalar(None, column.type), column)

    def raw(self, row: int) -> bytes:
        return repr({name: column[row].as_py() for name, column in self._columns.items()}).encode()[:MAX_LINE]

    def value(self, name: str, row: int) -> str | None:
        value = self._text[name][row].as_py()
        return None if value is None else str(value)

    def tokens(self, name: str) -> pa.DictionaryArray:
        return self._text[name].cast(pa.large_string()).dictionary_encode()

    def numbers(self, name: str) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        return to_float(self._text[name])

    def missing(self, name: str) -> NDArray[np.bool_]:
        return np.asarray(self._text[name].is_null().to_numpy(zero_copy_only=False))

    def timestamps(self, name: str) -> pa.Array | None:
        return self._text[name] if pa.types.is_timestamp(self._text[name].type) else None

    def bags(self, name: str, separator: str, most: int | None) -> tuple[pa.Array, int]:
        column = self._text[name]
        if not pa.types.is_large_list(column.type):
            column = pc.split_pattern(column.cast(pa.large_string()), separator)
        column = pc.fill_null(column, pa.scalar([], column.type))
        lengths_N = pc.list_value_length(column).to_numpy().astype(np.int64)
        flat = pc.list_flatten(column)
        row = np.repeat(np.arange(len(lengths_N)), lengths_N)
        keep = ~pc.or_(flat.is_null(), pc.is_in(flat, self._missing)).to_numpy(zero_copy_only=False)
        row, flat = row[keep], flat.filter(pa.array(keep))
        lengths_N = np.bincount(row, minlength=len(lengths_N))
        truncated = 0
        if most is not None:
            place = np.arange(len(row)) - np.repeat(np.cumsum(lengths_N) - lengths_N, lengths_N)
            truncated = int((lengths_N > most).sum())
            flat, lengths_N = flat.filter(pa.array(place < most)), np.minimum(lengths_N, most)
        offsets = np.concatenate([[0], np.cumsum(lengths_N)])
        return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), flat.dictionary_encode()), truncated


def _as_text(path: str, name: str, column: pa.Array, single: bool, time: bool) -> pa.Array:
    """A parquet column as text, null where it has no value; lists as lists of text, times, where they are read as such, as they are.

    Raises:
        UserError: a type that cannot be read so; lists where something reads the column as one value a row.
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
