"""A piece of a log as a block of string columns, with the rows that are no rows told apart."""

import csv
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
from numpy.typing import NDArray

from dmoe.data.log.schema import Schema
from dmoe.data.log.source import MAX_ROW, File, quoting
from dmoe.data.rejects import MAX_LINE, Reject
from dmoe.errors import UserError


@dataclass
class Block:
    """Rows as string columns (or list<string>). `line[i]` is row i's 1-based line, or row of a parquet file; `raw` gives its text."""

    columns: dict[str, pa.Array]
    line: NDArray[np.int64]
    lines: int
    rejects: list[Reject]
    texts: list[bytes] = field(default_factory=list)

    def raw(self, row: int) -> bytes:
        if self.texts:
            return self.texts[row][:MAX_LINE]
        return repr({name: column[row].as_py() for name, column in self.columns.items()}).encode()[:MAX_LINE]


def read_piece(file: File, schema: Schema, piece: Any, number: int) -> Block:
    """The rows of a piece (dmoe.data.log.source.pieces), `number` that of its first line or row."""
    return (_of_batch if schema.format == "parquet" else _of_text)(file, schema, piece, number)


def _of_batch(file: File, schema: Schema, batch: pa.RecordBatch, number: int) -> Block:
    times = {schema.time.column} if schema.time else set()
    pooled = {one.column or one.name for one in schema.categorical if one.pooling}
    others = {one.column or one.name for one in schema.dense} | {one.column or one.name for one in schema.categorical if not one.pooling}
    single = (set(file.used) - pooled) | others | times
    columns = {name: _as_text(file.path, name, batch.column(name), name in single, name in times) for name in file.used}
    return Block(columns, np.arange(number, number + batch.num_rows), batch.num_rows, [])


def _of_text(file: File, schema: Schema, piece: bytes, number: int) -> Block:
    """Malformed lines are its rejects, and are no rows."""
    lines = piece.split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    lines = [line.removesuffix(b"\r") for line in lines]
    width, delimiter, quote = len(file.columns), schema.delimiter_bytes, (schema.quote or "").encode()
    good: list[int] = []
    texts: list[bytes] = []
    quoted: list[tuple[int, list[str]]] = []
    rejects: list[Reject] = []
    simple = _simple(piece)
    for at, line in enumerate(lines):
        why = None if simple else _encoding(line)
        fields = None
        if why is None and quote and quote in line:
            try:
                fields = next(csv.reader([line.decode()], delimiter=delimiter.decode(), **quoting(schema)))
            except csv.Error:
                why = "fields", "a quote that is not closed on its line, or text after a closing one"
        count = len(fields) if fields is not None else line.count(delimiter) + 1
        if why is None and count != width:
            why = "fields", f"{count} field{'s' * (count != 1)}, expected {width}"
        if why is not None:
            rejects.append(Reject(number + at, *why, line[:MAX_LINE]))
            continue
        if fields is not None:
            quoted.append((len(good), fields))
        good.append(number + at)
        texts.append(line)
    return Block(_parsed(file, schema, texts, quoted), np.array(good, np.int64), len(lines), rejects, texts)


def _simple(text: bytes) -> bool:
    return text.isascii() and b"\0" not in text and (b"\r" not in text or text.count(b"\r") == text.count(b"\r\n"))


def _encoding(line: bytes) -> tuple[str, str] | None:
    if len(line) > MAX_ROW:
        return "long", f"the line is longer than {MAX_ROW} bytes"
    try:
        line.decode()
    except UnicodeDecodeError as error:
        return "encoding", f"byte 0x{line[error.start]:02x} at column {error.start + 1}, expected UTF-8 text"
    for byte in (b"\0", b"\r"):
        if byte in line:
            return "encoding", f"byte 0x{byte[0]:02x} at column {line.index(byte) + 1}, expected text"
    return None


def _parsed(file: File, schema: Schema, texts: list[bytes], quoted: list[tuple[int, list[str]]]) -> dict[str, pa.Array]:
    """The columns of lines that all have the right number of fields; those with quotes were cut already."""
    if not texts:
        return {name: pa.array([], pa.large_string()) for name in file.used}
    plain = list(texts)
    for row, _ in quoted:
        plain[row] = schema.delimiter_bytes * (len(file.columns) - 1)
    # A line of two empty fields and more is never empty, so no line is skipped and rows stay in step with lines.
    table = pyarrow.csv.read_csv(
        pa.py_buffer(b"\n".join(plain) + b"\n"),
        read_options=pyarrow.csv.ReadOptions(column_names=list(file.columns), use_threads=False, block_size=1 << 30),
        parse_options=pyarrow.csv.ParseOptions(
            delimiter=schema.delimiter_bytes.decode(), quote_char=False, escape_char=False, newlines_in_values=False
        ),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(file.used, pa.large_string()),
            include_columns=list(file.used),
            strings_can_be_null=False,
            check_utf8=False,
        ),
    )
    columns, places = {}, {name: place for place, name in enumerate(file.columns)}
    for name in file.used:
        column = table.column(name).combine_chunks()
        if quoted:
            values, at = column.to_pylist(), places[name]
            for row, fields in quoted:
                values[row] = fields[at]
            column = pa.array(values, pa.large_string())
        columns[name] = column
    return columns


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
