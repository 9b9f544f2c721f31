"""Samples the rows of a raw log, read as preprocessing would read them.

Rows come from evenly spread positions of a file, since the start of a log in the order of time may not represent it; of a compressed
file, from its start.

Shapes: N sampled rows, T values of a column (T = N if no row has several).
"""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dmoe.data.prepare.parse.parquet_block import as_text
from dmoe.data.prepare.parse.text_block import unreadable
from dmoe.data.prepare.propose.places import PLACES, bytes_a_row, read_places
from dmoe.data.prepare.rejects import BOM, Reject
from dmoe.data.prepare.schema import Schema, parse_schema
from dmoe.data.prepare.source.log_files import File, describe, json_object
from dmoe.data.prepare.source.raw_bytes import open_raw
from dmoe.errors import UserError, first_line
from dmoe.names import first_twice, quoted

UNKNOWN = "\0"
"""Placeholder for the label of a schema that is only used to split a file into fields."""
NOTHING = pa.chunked_array([], pa.large_string())
"""The values of a column that cannot be read."""


@dataclass(frozen=True)
class Asked:
    """What the user knows about the log.

    Attributes:
        rows: approximate number of rows to sample.
        delimiter: None to find it.
        header: whether the first line names the columns; None to find out.
        columns: names of the columns, if no line names them.
    """

    rows: int = 100_000
    delimiter: str | None = None
    header: bool | None = None
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Column:
    """A sampled column.

    Attributes:
        values: [T] texts with nulls, or times.
        lengths: [N] number of values of each row, if the column holds lists.
        unread: why the column cannot be read; empty if it can.
    """

    name: str
    values: pa.ChunkedArray
    lengths: NDArray[np.int64] | None = None
    unread: str = ""


@dataclass(frozen=True)
class Sample:
    """A sample of one file, or of several files with the same form.

    Attributes:
        rows: number of well-formed rows.
        pieces: (file, argument of `read_piece`, number of its first line, or 0 if unknown), to try a schema on.
        form: keys of the schema that say how the file is split into fields.
        notes: reasons for the values of `form`, by key.
        told: from where the rows were taken.
        malformed: how many rows are malformed, with an example; empty if none is.
    """

    file: File
    rows: int
    columns: list[Column]
    pieces: list[tuple[File, Any, int]]
    form: dict[str, Any]
    notes: dict[str, str] = field(default_factory=dict)
    told: str = ""
    malformed: str = ""


def cutting_schema(name: str, form: dict[str, Any]) -> Schema:
    """A schema that reads no columns, to split a file into fields."""
    return parse_schema(form | {"label": UNKNOWN, "categorical": ["-"]}, name)


def refuse_all(name: str, rejects: list[Reject]) -> UserError:
    """The error for a log without any well-formed row."""
    first = rejects[0]
    what = "; convert it: iconv -f ISO-8859-1 -t UTF-8" if first.kind == "encoding" and "UTF-8" in first.reason else ""
    return UserError(f"{name}:{first.line}: {first.reason}{what} (no well-formed row among {len(rejects):,})")


def malformed(rejects: list[Reject], lines: int) -> str:
    """A sentence about malformed rows; empty if there are none."""
    if not rejects:
        return ""
    first = rejects[0]
    place = f"line {first.line:,}: " if first.line else ""
    return f"{len(rejects):,} of {lines:,} sampled rows are malformed, such as {place}{first.reason}"


def described(path: str, name: str, schema: Schema) -> File:
    """Describes the file at `path`, which messages call `name`. All columns that have a name are used.

    Raises:
        UserError: it cannot be read, or is empty, or two columns have one name.
    """
    file = describe(path, name, schema)
    if file is None:
        raise UserError(f"{name}: empty, no rows to read")
    used = tuple(one for one in file.columns if one)
    if twice := first_twice(used):
        raise UserError(f"{name}: two columns {quoted(twice)}; rename one")
    return replace(file, at=path, used=used)


def of_json(path: str, name: str, start: bytes, asked: Asked) -> Sample:
    """Samples JSON lines. `start` is the start of the text."""
    schema = cutting_schema(name, {"format": "jsonl"})
    file = described(path, name, schema)
    kept, told = read_places(file, b"", asked.rows, bytes_a_row(start))
    rows: list[dict[str, Any]] = []
    rejects: list[Reject] = []
    for piece, number in kept:
        for place, line in enumerate(piece.removesuffix(b"\n").split(b"\n"), start=number):
            try:
                rows.append(dict(json_object(line.removeprefix(BOM).removesuffix(b"\r"))))
            except ValueError as error:
                why = unreadable(line) if isinstance(error, UnicodeDecodeError) else ("json", str(error))
                rejects.append(Reject(place if number else 0, *why, b""))
    if not rows:
        raise refuse_all(name, rejects)
    keys = tuple(dict.fromkeys(key for row in rows for key in row if key))
    file = replace(file, columns=keys, used=keys)
    columns = [_json_column(key, [row.get(key) for row in rows]) for key in keys]
    tried = [(file, *one) for one in kept]
    return Sample(file, len(rows), columns, tried, {"format": "jsonl"}, {}, told, malformed(rejects, len(rows) + len(rejects)))


def _json_column(name: str, values: list[Any]) -> Column:
    """A column of values from `json_object`, in which numbers are texts and objects are tuples."""
    lists = any(isinstance(one, list) for one in values)
    flat = [item for one in values for item in (one if isinstance(one, list) else [one])] if lists else values
    if any(isinstance(one, tuple) for one in flat):
        return Column(name, NOTHING, unread="holds objects" + " in lists" * lists)
    if any(isinstance(one, list) for one in flat):
        return Column(name, NOTHING, unread="holds lists of lists")
    texts = [str(one).lower() if isinstance(one, bool) else one for one in flat]
    lengths = np.array([len(one) if isinstance(one, list) else one is not None for one in values], np.int64) if lists else None
    return Column(name, pa.chunked_array([pa.array(texts, pa.large_string())]), lengths)


def of_parquet(path: str, name: str, asked: Asked) -> Sample:
    """Samples a parquet file, from evenly spread row groups."""
    schema = cutting_schema(name, {"format": "parquet"})
    file = described(path, name, schema)
    batches: list[pa.RecordBatch] = []
    try:
        with open_raw(path) as raw:
            reader = pq.ParquetFile(raw)
            total, groups = reader.metadata.num_rows, reader.metadata.num_row_groups
            chosen = sorted({round(at) for at in np.linspace(0, groups - 1, min(groups, PLACES))}) if groups else []
            each = max(-(-asked.rows // max(len(chosen), 1)), 1)
            for group in chosen if total > asked.rows else range(groups):
                left = each if total > asked.rows else total
                for batch in reader.iter_batches(min(left, 1 << 16), row_groups=[group], columns=list(file.used), use_threads=False):
                    batches.append(batch.slice(0, left))
                    left -= len(batches[-1])
                    if left <= 0:
                        break
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{name}: cannot be read ({first_line(error, 100)})") from None
    rows = sum(batch.num_rows for batch in batches)
    if not rows:
        raise UserError(f"{name}: no rows, expected some to propose a schema from")
    columns = [_parquet_column(name, one, [batch.column(one) for batch in batches]) for one in file.used]
    told = f"from {len(chosen)} of {groups} row groups" if total > rows else "all of it"
    return Sample(file, rows, columns, [(file, batch, 0) for batch in batches], {"format": "parquet"}, told=told)


def _parquet_column(path: str, name: str, arrays: list[pa.Array]) -> Column:
    try:
        texts = [as_text(path, name, one, single=False, time=True) for one in arrays]
    except UserError:
        return Column(name, NOTHING, unread=f"is {str(arrays[0].type)[:80]}, which cannot be read")
    if not pa.types.is_large_list(texts[0].type):
        return Column(name, pa.chunked_array(texts))
    lengths = np.concatenate([one.value_lengths().fill_null(0).to_numpy() for one in texts]).astype(np.int64)
    return Column(name, pa.chunked_array([one.flatten() for one in texts]), lengths)


def joined(samples: list[Sample]) -> Sample:
    """Joins the samples of several files.

    Raises:
        UserError: a file has another form or other columns than the first.
    """
    first = samples[0]
    names = {one.name for one in first.columns}
    for one in samples[1:]:
        if one.form != first.form:
            raise UserError(f"{one.file.path}: of another form than {first.file.path}: {one.form}, {first.form}")
        mine = {column.name for column in one.columns}
        if first.form["format"] != "jsonl" and mine != names:
            odd = min(mine ^ names)
            raise UserError(f"{one.file.path}: {'has' if odd in mine else 'lacks'} a column {quoted(odd)}, unlike {first.file.path}")
    of: dict[str, list[Column | None]] = {}
    for number, one in enumerate(samples):
        for column in one.columns:
            of.setdefault(column.name, [None] * len(samples))[number] = column
    columns = [_joined(name, found, [one.rows for one in samples]) for name, found in of.items()]
    rows = sum(one.rows for one in samples)
    told = first.told if len(samples) == 1 else f"{len(samples)} files"
    return replace(first, rows=rows, columns=columns, pieces=[piece for one in samples for piece in one.pieces], told=told)


def _joined(name: str, columns: list[Column | None], rows: list[int]) -> Column:
    found = [
        one if one else Column(name, pa.chunked_array([pa.nulls(count, pa.large_string())]))
        for one, count in zip(columns, rows, strict=True)
    ]
    if unread := next((one.unread for one in found if one.unread), ""):
        return replace(found[0], unread=unread)
    kinds = {one.values.type for one in found}
    if len(kinds) > 1 and not all(pa.types.is_string(one) or pa.types.is_large_string(one) for one in kinds):
        return replace(found[0], unread=f"is {' and '.join(sorted(map(str, kinds)))} in different files")
    values = pa.chunked_array([chunk.cast(found[0].values.type) for one in found for chunk in one.values.chunks], found[0].values.type)
    if all(one.lengths is None for one in found):
        return Column(name, values)
    lengths = [one.values.is_valid().to_numpy().astype(np.int64) if one.lengths is None else one.lengths for one in found]
    return Column(name, values, np.concatenate(lengths))
