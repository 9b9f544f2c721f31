"""The files of a log, and their bytes in pieces of whole rows.

A text file is read in order, cut at line ends; a parquet file is read in batches of rows. What a row becomes (dmoe.data.log.rows)
does not depend on the piece that it lies in.
"""

import csv
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dmoe.data.containers import find_layers, read_full, unwrapped
from dmoe.data.layout import BOM
from dmoe.data.log.schema import Schema
from dmoe.data.log.words import occurrences
from dmoe.data.raw_file import RawFile, WithoutBlankEnd
from dmoe.data.sources import STDIN, find_paths, identity, open_raw
from dmoe.errors import UserError, nearest, printable

MAX_ROW = 1 << 20
"""Bytes of the longest line."""
BYTES_A_ROW = 256
"""By which a parquet batch's rows are chosen for a block size."""


@dataclass(frozen=True)
class File(RawFile):
    """`columns` are the file's own, in order, `used` those that the schema reads."""

    columns: tuple[str, ...]
    used: tuple[str, ...]


def find_files(patterns: list[str], schema: Schema, where: str, labelled: bool = True) -> list[File]:
    """The files that the names, folders and globs mean, each once, in natural order of their names.

    Args:
        where: the schema's file, for messages.

    Raises:
        UserError: none found, one that cannot be read, or that lacks a column which the schema names.
    """
    files = [one for path in find_paths(patterns) if (one := _describe(path, schema, where, labelled))]
    if not files:
        raise UserError(f"--input {' '.join(patterns)}: empty, no rows to read")
    return files


def spooled_file(path: str, digest: str, schema: Schema, where: str, labelled: bool = True) -> File:
    """Standard input, whose bytes were copied to `path` (dmoe.data.sources.spool).

    Raises:
        UserError: it was empty, cannot be read, or lacks a column which the schema names.
    """
    one = _describe(path, schema, where, labelled, STDIN)
    if not one:
        raise UserError(f"--input {STDIN}: empty, no rows to read")
    return replace(one, path=STDIN, changed=digest, at=path)


def _describe(path: str, schema: Schema, where: str, labelled: bool, name: str = "") -> File | None:
    """The file, called `name`; None where it is empty."""
    name = name or path
    layers: tuple[str, ...] = ()
    if schema.format == "parquet":
        columns = _parquet_columns(path, name)
    else:
        layers, start = find_layers(path, name, MAX_ROW + 1)
        columns = tuple(schema.columns) if schema.columns else _header(name, start, schema, where) if start else None
    if columns is None:
        return None
    size, changed = identity(path)
    used = schema.used(labelled)
    there = Counter(columns)
    for column, key in used.items():
        if column not in there:
            line = ":1" if schema.format != "parquet" and schema.header else ""
            raise UserError(f"{name}{line}: no column '{column}', which {where} reads ({key}){_hint(column, columns)}")
        if there[column] > 1:
            raise UserError(f"{name}: two columns '{column}'; rename one")
    return File(path, size, changed, layers, columns, tuple(used))


def _hint(column: str, columns: tuple[str, ...]) -> str:
    """The nearest name, or what the file has: of a text file without a header these are its first row's values."""
    hint = nearest(column, columns)
    if hint.startswith(", did"):
        return printable(hint)
    if len(columns) == 1 and (other := next((one for one in ";,\t|" if column in columns[0].split(one)), "")):
        return f"; the header's names are separated by {other!r}: say so with `delimiter:`"
    return f"; its columns are {', '.join(printable(one)[:80] for one in columns[:6])}{', ...' if len(columns) > 6 else ''}"


def _parquet_columns(path: str, name: str) -> tuple[str, ...] | None:
    """None of an empty file."""
    try:
        with open_raw(path) as file:
            if not file.read(1):
                return None
            return tuple(pq.ParquetFile(file).schema_arrow.names)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{name}: not a parquet file ({str(error).splitlines()[0][:100]})") from None


def _header(name: str, start: bytes, schema: Schema, where: str) -> tuple[str, ...]:
    """The columns' names from the first line of a text."""
    first = start.split(b"\n", 1)[0].removesuffix(b"\r")
    if len(first) > MAX_ROW:
        raise UserError(f"{name}:1: the header is longer than {MAX_ROW >> 20} MiB; is {where}'s format right?")
    try:
        names = next(csv.reader([first.decode("utf-8-sig")], delimiter=schema.delimiter_bytes.decode(), **quoting(schema)), [])
    except (UnicodeDecodeError, csv.Error):
        raise UserError(f"{name}:1: the header is not a line of text") from None
    if not names:
        raise UserError(f"{name}:1: the first line is empty, expected the columns' names")
    return tuple(names)


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
        stream, ended = unwrapped(one.path, file, one.compression), False
        # In a log of one column an empty line is a row without a value.
        if len(one.columns) > 1:
            stream = WithoutBlankEnd(stream)
        rest = read_full(one.path, stream, len(BOM)).removeprefix(BOM)
        if schema.header:
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
                number += occurrences(text, b"\n")


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
