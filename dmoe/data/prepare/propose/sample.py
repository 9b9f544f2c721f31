"""Samples the rows of a raw log, read as preprocessing would read them.

Rows come from evenly spread positions of a file, since the start of a log in the order of time may not represent it; of a compressed
file, from its start.

Shapes: N sampled rows.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

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
LISTS = pa.large_list(pa.large_string())


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
class Sample:
    """A sample of one file, or of several files with the same form.

    Attributes:
        columns: the well-formed rows: texts, lists of texts, or times. A column that cannot be read has nulls.
        unread: column -> why it cannot be read.
        pieces: (file, argument of `read_piece`, number of its first line, or 0 if unknown), to try a schema on.
        form: keys of the schema that say how the file is split into fields.
        notes: reasons for the values of `form`, by key.
        told: from where the rows were taken.
        malformed: how many rows are malformed, with an example; empty if none is.
    """

    file: File
    columns: pa.Table
    unread: dict[str, str]
    pieces: list[tuple[File, Any, int]]
    form: dict[str, Any]
    notes: dict[str, str] = field(default_factory=dict)
    told: str = ""
    malformed: str = ""

    @property
    def rows(self) -> int:
        """Number of well-formed rows."""
        return int(self.columns.num_rows)


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
    columns, unread = table_of({key: _json_column([row.get(key) for row in rows]) for key in keys}, len(rows))
    tried = [(file, *one) for one in kept]
    return Sample(file, columns, unread, tried, {"format": "jsonl"}, {}, told, malformed(rejects, len(rows) + len(rejects)))


def table_of(columns: dict[str, pa.Array | pa.ChunkedArray | str], rows: int) -> tuple[pa.Table, dict[str, str]]:
    """(`columns` and `unread` of Sample), from the values of each column, or why it cannot be read."""
    unread = {name: one for name, one in columns.items() if isinstance(one, str)}
    nothing = pa.nulls(rows, pa.large_string())
    return pa.table({name: nothing if name in unread else one for name, one in columns.items()}), unread


def _json_column(values: list[Any]) -> pa.Array | str:
    """A column of values from `json_object`, in which numbers are texts and objects are tuples; or why it cannot be read."""
    lists = any(isinstance(one, list) for one in values)
    rows = [one if isinstance(one, list) else [] if one is None else [one] for one in values] if lists else [values]
    flat = [one for row in rows for one in row]
    if any(isinstance(one, tuple) for one in flat):
        return "holds objects" + " in lists" * lists
    if any(isinstance(one, list) for one in flat):
        return "holds lists of lists"
    texts = pa.array([str(one).lower() if isinstance(one, bool) else one for one in flat], pa.large_string())
    return pa.LargeListArray.from_arrays(np.cumsum([0, *map(len, rows)]), texts) if lists else texts


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
    columns, unread = table_of({one: _parquet_column(name, one, [batch.column(one) for batch in batches]) for one in file.used}, rows)
    told = f"from {len(chosen)} of {groups} row groups" if total > rows else "all of it"
    return Sample(file, columns, unread, [(file, batch, 0) for batch in batches], {"format": "parquet"}, told=told)


def _parquet_column(path: str, name: str, arrays: list[pa.Array]) -> pa.ChunkedArray | str:
    try:
        return pa.chunked_array([as_text(path, name, one, single=False, time=True) for one in arrays])
    except UserError:
        return f"is {str(arrays[0].type)[:80]}, which cannot be read"


def joined(samples: list[Sample]) -> Sample:
    """Joins the samples of several files.

    Raises:
        UserError: a file has another form or other columns than the first.
    """
    first = samples[0]
    names = set(first.columns.column_names)
    for one in samples[1:]:
        if one.form != first.form:
            raise UserError(f"{one.file.path}: of another form than {first.file.path}: {one.form}, {first.form}")
        mine = set(one.columns.column_names)
        if first.form["format"] != "jsonl" and mine != names:
            odd = min(mine ^ names)
            raise UserError(f"{one.file.path}: {'has' if odd in mine else 'lacks'} a column {quoted(odd)}, unlike {first.file.path}")
    every = list(dict.fromkeys(name for one in samples for name in one.columns.column_names))
    columns, unread = table_of({name: _joined(name, samples) for name in every}, sum(one.rows for one in samples))
    told = first.told if len(samples) == 1 else f"{len(samples)} files"
    return replace(first, columns=columns, unread=unread, pieces=[piece for one in samples for piece in one.pieces], told=told)


def _joined(name: str, samples: list[Sample]) -> pa.ChunkedArray | str:
    """The values of a column in all samples, null where a sample lacks it; or why it cannot be read."""
    if why := next((one.unread[name] for one in samples if name in one.unread), ""):
        return why
    found = [one.columns[name] if name in one.columns.column_names else pa.nulls(one.rows) for one in samples]
    kinds = {one.type for one in found} - {pa.null()}
    if kinds == {pa.large_string(), LISTS}:
        found, kinds = [one if one.type == LISTS else _as_lists(one) for one in found], {LISTS}
    if len(kinds) > 1:
        return f"is {' and '.join(sorted(map(str, kinds)))} in different files"
    (kind,) = kinds
    return pa.chunked_array([chunk for one in found for chunk in pa.chunked_array(one.cast(kind)).chunks], kind)


def _as_lists(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Texts as lists of one text, or of none."""
    return pa.array([[] if text is None else [text] for text in column.to_pylist()], LISTS)
