"""The rows of a log's files as blocks of string columns, with the rows that are no rows told apart.

A text file is read in order, cut into blocks at line ends; a parquet file is read in batches of rows. What a row becomes does not
depend on the block that it lies in.
"""

import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dmoe.data.log.schema import Schema
from dmoe.data.rejects import MAX_LINE, Reject
from dmoe.data.sources import expand, identity, is_remote, natural_key, open_raw
from dmoe.errors import UserError, nearest

MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
MAX_ROW = 1 << 20
"""Bytes of the longest line."""
BYTES_A_ROW = 256
"""By which a parquet batch's rows are chosen for a block size."""


@dataclass(frozen=True)
class File:
    """An input file; `columns` are its own, in order, `used` those that the schema reads."""

    path: str
    size: int
    changed: int | str
    compression: str | None
    columns: tuple[str, ...]
    used: tuple[str, ...]


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


def find_files(patterns: list[str], schema: Schema, where: str, labelled: bool = True) -> list[File]:
    """The files that the names, folders and globs mean, each once, in natural order of their names.

    Args:
        where: the schema's file, for messages.

    Raises:
        UserError: none found, one that cannot be read, or that lacks a column which the schema names.
    """
    paths = {path if is_remote(path) else os.path.realpath(path): path for pattern in patterns for path in expand(pattern)}
    files = []
    for path in sorted(paths.values(), key=natural_key):
        with open_raw(path) as raw:
            head = raw.read(4)
        if not head:
            continue
        size, changed = identity(path)
        compression = next((name for magic, name in MAGIC.items() if head.startswith(magic)), None)
        columns = _columns(path, compression, schema)
        used = schema.used(labelled)
        for column, key in used.items():
            if column not in columns:
                line = ":1" if schema.format != "parquet" and schema.header else ""
                raise UserError(f"{path}{line}: no column '{column}', which {where} reads ({key}){_hint(column, columns)}")
            if columns.count(column) > 1:
                raise UserError(f"{path}: two columns '{column}'; rename one")
        files.append(File(path, size, changed, compression, columns, tuple(used)))
    if not files:
        raise UserError(f"--input {' '.join(patterns)}: empty, no rows to read")
    return files


def _hint(column: str, columns: tuple[str, ...]) -> str:
    """The nearest name, or what the file has: of a text file without a header these are its first row's values."""
    hint = nearest(column, columns)
    return hint if hint.startswith(", did") else f"; its columns are {', '.join(columns[:6])}{', ...' if len(columns) > 6 else ''}"


def _columns(path: str, compression: str | None, schema: Schema) -> tuple[str, ...]:
    if schema.format == "parquet":
        try:
            with open_raw(path) as file:
                return tuple(pq.ParquetFile(file).schema_arrow.names)
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{path}: not a parquet file ({str(error).splitlines()[0][:100]})") from None
    if schema.columns:
        return tuple(schema.columns)
    with open_raw(path) as file:
        first = _read(path, _decompressed(file, compression), MAX_ROW).split(b"\n", 1)[0].removesuffix(b"\r")
    try:
        names = next(csv.reader([first.decode("utf-8-sig")], delimiter=schema.delimiter_bytes.decode(), **_quoting(schema)), [])
    except (UnicodeDecodeError, csv.Error):
        raise UserError(f"{path}:1: the header is not a line of text") from None
    return tuple(names)


def _quoting(schema: Schema) -> dict[str, Any]:
    return {"quotechar": schema.quote, "strict": True} if schema.quote else {"quoting": csv.QUOTE_NONE}


def _decompressed(file: IO[bytes], compression: str | None) -> IO[bytes] | Any:
    return pa.CompressedInputStream(pa.PythonFile(file, mode="r"), compression) if compression else file


def _read(path: str, stream: IO[bytes] | Any, size: int) -> bytes:
    pieces, left = [], size
    try:
        while left and (piece := stream.read(left)):
            pieces.append(piece)
            left -= len(piece)
    except OSError as error:
        raise UserError(f"{path}: cannot be decompressed, it is truncated or broken ({error})") from None
    return b"".join(pieces)


def pieces(one: File, schema: Schema, block_bytes: int) -> Iterator[tuple[Any, int, int]]:
    """(piece for `read_piece`, number of its first line or row, its bytes), in order; a piece holds whole rows."""
    if schema.format == "parquet":
        yield from _parquet_pieces(one, block_bytes)
        return
    number = 1
    with open_raw(one.path) as file:
        stream, rest, ended = _decompressed(file, one.compression), b"", False
        if schema.header:
            rest, number = _read(one.path, stream, MAX_ROW + 1).partition(b"\n")[2], 2
        while not ended:
            more = _read(one.path, stream, block_bytes)
            ended = len(more) < block_bytes
            text = rest + more
            cut = len(text) if ended else text.rfind(b"\n") + 1
            if not cut and len(text) > MAX_ROW:
                raise UserError(f"{one.path}:{number}: a line longer than {MAX_ROW >> 20} MiB; is --schema's format right?")
            text, rest = text[:cut], text[cut:]
            if text:
                yield text, number, len(text)
                number += text.count(b"\n")


def _parquet_pieces(one: File, block_bytes: int) -> Iterator[tuple[Any, int, int]]:
    number = 1
    try:
        with open_raw(one.path) as raw:
            file = pq.ParquetFile(raw)
            rows = max(file.metadata.num_rows, 1)
            for batch in file.iter_batches(max(block_bytes // BYTES_A_ROW, 1), columns=list(one.used), use_threads=False):
                yield batch, number, one.size * batch.num_rows // rows
                number += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{one.path}: cannot be read at row {number:,} ({str(error).splitlines()[0][:100]})") from None


def read_piece(one: File, schema: Schema, piece: Any, number: int) -> Block:
    """The rows of a piece. Malformed lines are its rejects, and are no rows."""
    if schema.format == "parquet":
        times = {schema.time.column} if schema.time else set()
        pooled = {feature.column or feature.name for feature in schema.categorical if feature.pooling}
        others = {one.column or one.name for one in schema.dense} | {
            one.column or one.name for one in schema.categorical if not one.pooling
        }
        single = (set(one.used) - pooled) | others | times
        columns = {name: _as_text(one.path, name, piece.column(name), name in single, name in times) for name in one.used}
        return Block(columns, np.arange(number, number + piece.num_rows), piece.num_rows, [])
    lines = piece.split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    lines = [line.removesuffix(b"\r") for line in lines]
    width, delimiter, quote = len(one.columns), schema.delimiter_bytes, (schema.quote or "").encode()
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
                fields = next(csv.reader([line.decode()], delimiter=delimiter.decode(), **_quoting(schema)))
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
    return Block(_parsed(one, schema, texts, quoted), np.array(good, np.int64), len(lines), rejects, texts)


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


def _parsed(one: File, schema: Schema, texts: list[bytes], quoted: list[tuple[int, list[str]]]) -> dict[str, pa.Array]:
    """The columns of lines that all have the right number of fields; those with quotes were cut already."""
    if not texts:
        return {name: pa.array([], pa.large_string()) for name in one.used}
    plain = list(texts)
    for row, _ in quoted:
        plain[row] = schema.delimiter_bytes * (len(one.columns) - 1)
    # A line of two empty fields and more is never empty, so no line is skipped and rows stay in step with lines.
    table = pyarrow.csv.read_csv(
        pa.py_buffer(b"\n".join(plain) + b"\n"),
        read_options=pyarrow.csv.ReadOptions(column_names=list(one.columns), use_threads=False, block_size=1 << 30),
        parse_options=pyarrow.csv.ParseOptions(
            delimiter=schema.delimiter_bytes.decode(), quote_char=False, escape_char=False, newlines_in_values=False
        ),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(one.used, pa.large_string()),
            include_columns=list(one.used),
            strings_can_be_null=False,
            check_utf8=False,
        ),
    )
    columns = {}
    for name in one.used:
        column = table.column(name).combine_chunks()
        if quoted:
            values, at = column.to_pylist(), one.columns.index(name)
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
