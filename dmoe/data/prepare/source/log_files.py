"""Finds the files of a log, and reads which columns they have."""

import csv
import json
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dmoe.data.prepare.rejects import BOM
from dmoe.data.prepare.schema import Schema
from dmoe.data.prepare.source.blank_end import text_end
from dmoe.data.prepare.source.containers import find_layers
from dmoe.data.prepare.source.raw_bytes import STDIN, find_paths, identity, open_raw
from dmoe.data.prepare.source.record_ends import first_record
from dmoe.errors import UserError, first_line, nearest
from dmoe.json_text import format_json
from dmoe.names import printable, show

MAX_ROW = 1 << 20
"""Most bytes of a row, of one line or of several."""
SNIFFED_LINES = 64


@dataclass(frozen=True)
class File:
    """A file of a log.

    Attributes:
        path: its name in messages.
        size: bytes on disk. `(size, changed)` identifies the file when a run continues (raw_bytes.identity).
        compression: the layers around its text, the outermost first (dmoe.data.prepare.source.containers).
        columns: all columns of the file in order; for JSON lines, the keys of the first lines.
        used: the columns that the schema reads.
        delimiter: of a text file.
        header_bytes, header_lines: size of the header of a text file; the bytes include a byte-order mark.
        end: position of the end of the text, for a file that is read in blocks.
        at: where the bytes are, if not at `path`.
    """

    path: str
    size: int
    changed: int | str
    compression: tuple[str, ...]
    columns: tuple[str, ...]
    used: tuple[str, ...]
    delimiter: bytes = b""
    header_bytes: int = 0
    header_lines: int = 0
    end: int = 0
    at: str = field(default="", kw_only=True)

    @property
    def place(self) -> str:
        return self.at or self.path

    @property
    def known_by(self) -> list[object]:
        """Identifies the file and its state; part of the fingerprint of a run."""
        return [self.path, self.size, self.changed]


def check_unchanged(files: Sequence[File]) -> None:
    """Checks that no file was written to while it was read.

    Raises:
        UserError: a file has changed.
    """
    for one in files:
        if not one.at and identity(one.path) != (one.size, one.changed):
            raise UserError(f"{one.path}: changed while it was read; run the same command again when it is complete")


def find_files(patterns: list[str], schema: Schema, where: str, scoring: bool = False) -> tuple[list[File], Schema, bool]:
    """Finds and checks the files of a log.

    Args:
        patterns: names, folders and globs.
        where: how messages name the schema.
        scoring: only the columns of features are required. Others are read if every file has them.

    Returns:
        The files, each once, in natural order of their names; the schema without the columns that are not read; whether there is a label.

    Raises:
        UserError: no file, a file that cannot be read, or one without a column that the schema names.
    """
    files = [one for path in find_paths(patterns) if (one := describe(path, path, schema))]
    if not files:
        raise UserError(f"--input {' '.join(patterns)}: empty, no rows to read")
    return _checked(files, schema, where, scoring)


def spooled_file(path: str, digest: str, schema: Schema, where: str, scoring: bool = False) -> tuple[list[File], Schema, bool]:
    """As `find_files`, for standard input, which was copied to `path` (dmoe.data.prepare.source.raw_bytes.spool)."""
    one = describe(path, STDIN, schema)
    if not one:
        raise UserError(f"--input {STDIN}: empty, no rows to read")
    return _checked([replace(one, changed=digest, at=path)], schema, where, scoring)


def describe(path: str, name: str, schema: Schema) -> File | None:
    """Describes the file at `path`, which messages call `name`; None if it is empty."""
    if schema.format == "parquet":
        found = _parquet_columns(path, name)
        return None if found is None else File(name, *identity(path), (), found, ())
    layers, start = find_layers(path, name, MAX_ROW + 1)
    if not start or (schema.format == "jsonl" and len(start) <= MAX_ROW and not start.removeprefix(BOM).strip()):
        return None
    size, changed = identity(path)
    if schema.format == "jsonl":
        return File(name, size, changed, layers, _keys(start), ())
    first = start.partition(b"\n")[0]
    delimiter = schema.delimiter_bytes if schema.format != "text" else b"\t" if b"\t" in first or b"," not in first else b","
    columns, header_bytes, header_lines = _columns(name, start, delimiter, schema)
    end = text_end(path, size) if schema.typed_columns and not layers else 0
    return File(name, size, changed, layers, columns, (), delimiter, header_bytes, header_lines, end)


def _checked(files: list[File], schema: Schema, where: str, scoring: bool) -> tuple[list[File], Schema, bool]:
    label, labelled = schema.label.column, True
    if scoring:
        common = set.intersection(*(set(one.columns) for one in files))
        schema = schema.without(key for key in schema.optional_for_scores if schema.column_of(key) not in common)
        labelled = label in common
    used = schema.used(labelled)
    # The key of a feature may be rare. Label, weight and time must be in every row.
    optional = used.keys() - {label, schema.weight, schema.time and schema.time.column}
    for one in files:
        there = Counter(one.columns)
        if twice := [column for column in used if there[column] > 1]:
            raise UserError(f"{one.path}: two columns '{twice[0]}'; rename one")
        for column, key in used.items():
            if column not in there and schema.format == "jsonl" and column in optional:
                show(
                    f"warning: {one.path}: no object of its first lines has a key '{column}' ({key}){_hint(column, one.columns)}",
                    sys.stderr,
                )
            elif column not in there:
                line = ":1" if one.header_lines else ""
                unlabelled = column == label and not one.header_lines
                also = "; training data needs labels, --scoring makes data to score without" * unlabelled
                raise UserError(f"{one.path}{line}: no column '{column}', which {where} reads ({key}){_hint(column, one.columns)}{also}")
    return [replace(one, used=tuple(used)) for one in files], schema, labelled


def _hint(column: str, columns: tuple[str, ...]) -> str:
    """A hint for a message: the nearest name, or the columns of the file (without a header, the values of its first row)."""
    hint = nearest(column, columns)
    if hint.startswith(", did"):
        return printable(hint)
    if len(columns) == 1 and (other := next((one for one in ";,\t|" if column in columns[0].split(one)), "")):
        return f"; the header's names are separated by {other!r}: say so with `delimiter:`"
    return f"; its columns are {', '.join(printable(one)[:80] for one in columns[:6])}{', ...' if len(columns) > 6 else ''}"


def _parquet_columns(path: str, name: str) -> tuple[str, ...] | None:
    """The names of the columns; None if the file is empty."""
    try:
        with open_raw(path) as file:
            if not file.read(1):
                return None
            return tuple(pq.ParquetFile(file).schema_arrow.names)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{name}: not a parquet file ({first_line(error, 100)})") from None


def _refuse(text: str) -> None:
    raise ValueError(f"{text} is no JSON, expected a number or null")


# Numbers stay text. Objects become tuples of pairs, so that they can be told from lists.
_DECODER = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=_refuse, object_pairs_hook=tuple)


def json_object(line: bytes) -> tuple[tuple[str, Any], ...]:
    """The (key, value) pairs of the JSON object on a line. Numbers are texts, and nested objects are tuples of pairs.

    Raises:
        UnicodeDecodeError: the line is not UTF-8.
        ValueError: the line is not a JSON object; the message is one line.
    """
    text = line.decode()
    try:
        found = _DECODER.decode(text)
        if "\\u" in text:
            format_json(found, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise ValueError(f"no JSON: {error.msg[:1].lower()}{error.msg[1:]} at column {error.pos + 1}") from None
    except UnicodeEncodeError:
        raise ValueError("half a surrogate pair, which is no character") from None
    except RecursionError:
        raise ValueError("lists or objects are nested too deeply") from None
    if not isinstance(found, tuple):
        raise ValueError("expected an object, such as {...}")
    return found


def _keys(start: bytes) -> tuple[str, ...]:
    """The keys of the objects on the first lines, in the order of their first occurrence."""
    lines = start.removeprefix(BOM).split(b"\n")
    found: dict[str, None] = {}
    for line in lines[:-1] if len(lines) > 1 else lines:
        with suppress(ValueError):
            found.update(dict.fromkeys(key for key, _ in json_object(line)))
    return tuple(found)


def _columns(name: str, start: bytes, delimiter: bytes, schema: Schema) -> tuple[tuple[str, ...], int, int]:
    """(columns, header bytes, header lines) of a text file that begins with `start`."""
    line = first_record(start, delimiter, schema.quote_bytes, MAX_ROW)
    mark = len(BOM) if line.startswith(BOM) else 0
    if schema.columns and schema.header == "auto":
        found = [field.strip().strip('"') for field in line.decode("utf-8-sig", "replace").split(delimiter.decode())]
        known = {column.lower(): column for column in schema.columns}
        if known.keys() & {field.lower() for field in found}:
            return tuple(known.get(field.lower(), field) for field in found), len(line) + 1, line.count(b"\n") + 1
    if schema.columns:
        return _unnamed(start, delimiter, schema, schema.columns), mark, 0
    first = line.removesuffix(b"\r")
    if len(first) > MAX_ROW:
        raise UserError(f"{name}:1: the header is longer than {MAX_ROW >> 20} MiB; is the schema's format right?")
    try:
        names = next(csv.reader([first.decode("utf-8-sig")], delimiter=delimiter.decode(), **quoting(schema)), [])
    except (UnicodeDecodeError, csv.Error):
        raise UserError(f"{name}:1: the header is not a line of text") from None
    if not names:
        raise UserError(f"{name}:1: the first line is empty, expected the columns' names")
    return tuple(names), len(line) + 1, line.count(b"\n") + 1


def _unnamed(start: bytes, delimiter: bytes, schema: Schema, columns: list[str]) -> tuple[str, ...]:
    """The columns of the schema. The label's column is left out if the first lines have one field less than the schema has columns."""
    fields = Counter(line.count(delimiter) + 1 for line in start.split(b"\n", SNIFFED_LINES)[:SNIFFED_LINES] if line)
    unlabelled = fields[len(columns) - 1] and not fields[len(columns)]
    return tuple(column for column in columns if not unlabelled or column != schema.label.column)


def quoting(schema: Schema) -> dict[str, Any]:
    """Arguments of csv.reader for the quotes of the schema."""
    return {"quotechar": schema.quote, "strict": True} if schema.quote else {"quoting": csv.QUOTE_NONE}
