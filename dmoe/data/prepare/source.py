"""The files of a log, and their bytes in pieces of whole rows.

A text file is read in order, cut at line ends; a parquet file is read in batches of rows. What a row becomes (dmoe.data.prepare.rows)
does not depend on the piece that it lies in.
"""

import csv
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dmoe.data.prepare.raw_file import RawFile, compression_of, decompressed, read_full
from dmoe.data.prepare.schema import Schema
from dmoe.data.prepare.sources import STDIN, find_paths, identity, open_raw
from dmoe.errors import UserError, nearest

MAX_ROW = 1 << 20
"""Bytes of the longest line."""
BYTES_A_ROW = 256
"""By which a parquet batch's rows are chosen for a block size."""
SNIFFED_LINES = 64


@dataclass(frozen=True)
class File(RawFile):
    """`columns` are the file's own, in order, `used` those that the schema reads; of a text file, the delimiter and the header's bytes."""

    columns: tuple[str, ...]
    used: tuple[str, ...]
    delimiter: bytes = b""
    header_bytes: int = 0


def find_files(patterns: list[str], schema: Schema, where: str, scoring: bool = False) -> tuple[list[File], bool]:
    """The files that the names, folders and globs mean, each once, in natural order of their names; and whether they have a label.

    Args:
        where: the schema's file, for messages.
        scoring: they need none.

    Raises:
        UserError: none found, one that cannot be read, or that lacks a column which the schema names.
    """
    files = [one for path in find_paths(patterns) if (one := _describe(path, path, schema))]
    if not files:
        raise UserError(f"--input {' '.join(patterns)}: empty, no rows to read")
    return _checked(files, schema, where, scoring)


def spooled_file(path: str, digest: str, schema: Schema, where: str, scoring: bool = False) -> tuple[list[File], bool]:
    """As `find_files`, of standard input, whose bytes were copied to `path` (dmoe.data.prepare.sources.spool)."""
    one = _describe(path, STDIN, schema)
    if not one:
        raise UserError(f"--input {STDIN}: empty, no rows to read")
    return _checked([replace(one, changed=digest, at=path)], schema, where, scoring)


def _describe(path: str, name: str, schema: Schema) -> File | None:
    """The file, called `name`; None where it is empty."""
    with open_raw(path) as raw:
        head = raw.read(4)
    size, changed = identity(path)
    compression = compression_of(head)
    if schema.format == "parquet":
        return File(name, size, changed, compression, _parquet_columns(path, name), ()) if head else None
    with open_raw(path) as file:
        start = read_full(name, decompressed(file, compression), MAX_ROW + 1)
    if not start:
        return None
    first = start.partition(b"\n")[0]
    delimiter = schema.delimiter_bytes if schema.format != "text" else b"\t" if b"\t" in first or b"," not in first else b","
    columns, header_bytes = _columns(name, start, delimiter, schema)
    return File(name, size, changed, compression, columns, (), delimiter, header_bytes)


def _checked(files: list[File], schema: Schema, where: str, scoring: bool) -> tuple[list[File], bool]:
    label = schema.label.column
    without = [one for one in files if label not in one.columns]
    labelled = not without
    if scoring and without and len(without) < len(files):
        other = next(one for one in files if label in one.columns)
        raise UserError(f"{without[0].path}: no label column, but {other.path} has one; give them to separate runs")
    used = schema.used(labelled or not scoring)
    for one in files:
        if twice := [column for column in used if one.columns.count(column) > 1]:
            raise UserError(f"{one.path}: two columns '{twice[0]}'; rename one")
        for column, key in used.items():
            if column not in one.columns:
                line = ":1" if one.header_bytes else ""
                hint = _hint(column, one.columns)
                unlabelled = column == label and not one.header_bytes
                also = "; training data needs labels, --scoring makes data to score without" * unlabelled
                raise UserError(f"{one.path}{line}: no column '{column}', which {where} reads ({key}){hint}{also}")
    return [replace(one, used=tuple(used)) for one in files], labelled


def _hint(column: str, columns: tuple[str, ...]) -> str:
    """The nearest name, or what the file has: of a text file without a header these are its first row's values."""
    hint = nearest(column, columns)
    return hint if hint.startswith(", did") else f"; its columns are {', '.join(columns[:6])}{', ...' if len(columns) > 6 else ''}"


def _parquet_columns(path: str, name: str) -> tuple[str, ...]:
    try:
        with open_raw(path) as file:
            return tuple(pq.ParquetFile(file).schema_arrow.names)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{name}: not a parquet file ({str(error).splitlines()[0][:100]})") from None


def _columns(name: str, start: bytes, delimiter: bytes, schema: Schema) -> tuple[tuple[str, ...], int]:
    """(the columns of a text file that begins with `start`, the bytes of its header)."""
    line = start.partition(b"\n")[0]
    if schema.columns and schema.header == "auto":
        found = [field.strip().strip('"') for field in line.decode("utf-8-sig", "replace").split(delimiter.decode())]
        known = {column.lower(): column for column in schema.columns}
        if known.keys() & {field.lower() for field in found}:
            return tuple(known.get(field.lower(), field) for field in found), len(line) + 1
    if schema.columns:
        return _unnamed(start, delimiter, schema, schema.columns), 0
    first = line.removesuffix(b"\r")
    if len(first) > MAX_ROW:
        raise UserError(f"{name}:1: the header is longer than {MAX_ROW >> 20} MiB; is the schema's format right?")
    try:
        names = next(csv.reader([first.decode("utf-8-sig")], delimiter=delimiter.decode(), **quoting(schema)), [])
    except (UnicodeDecodeError, csv.Error):
        raise UserError(f"{name}:1: the header is not a line of text") from None
    return tuple(names), len(line) + 1


def _unnamed(start: bytes, delimiter: bytes, schema: Schema, columns: list[str]) -> tuple[str, ...]:
    """The schema's columns; without the label's where the first lines have one field less than there are columns, and none has all."""
    fields = Counter(line.count(delimiter) + 1 for line in start.split(b"\n", SNIFFED_LINES)[:SNIFFED_LINES] if line)
    unlabelled = fields[len(columns) - 1] and not fields[len(columns)]
    return tuple(column for column in columns if not unlabelled or column != schema.label.column)


def quoting(schema: Schema) -> dict[str, Any]:
    """How Python's csv is to read the schema's quotes."""
    return {"quotechar": schema.quote, "strict": True} if schema.quote else {"quoting": csv.QUOTE_NONE}


def pieces(one: File, schema: Schema, block_bytes: int) -> Iterator[tuple[Any, int, int]]:
    """(piece for `read_piece`, number of its first line or row, its bytes), in order; a piece holds whole rows."""
    if schema.format == "parquet":
        yield from _parquet_pieces(one, block_bytes)
        return
    number = 1
    with open_raw(one.place) as file:
        stream, rest, ended = decompressed(file, one.compression), b"", False
        if one.header_bytes:
            while b"\n" not in rest and (more := read_full(one.path, stream, block_bytes)):
                rest += more
            rest, number = rest.partition(b"\n")[2], 2
        while not ended:
            more = read_full(one.path, stream, block_bytes)
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
        with open_raw(one.place) as raw:
            file = pq.ParquetFile(raw, page_checksum_verification=True)
            rows = max(file.metadata.num_rows, 1)
            for batch in file.iter_batches(max(block_bytes // BYTES_A_ROW, 1), columns=list(one.used), use_threads=False):
                yield batch, number, one.size * batch.num_rows // rows
                number += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{one.path}: cannot be read at row {number:,} ({str(error).splitlines()[0][:100]})") from None
