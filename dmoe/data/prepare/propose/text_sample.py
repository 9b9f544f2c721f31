"""Samples a log. For delimited text, finds the delimiter, the quote and the header first."""

from typing import Any

import pyarrow as pa

from dmoe.data.prepare.parse.text_block import TextBlock
from dmoe.data.prepare.propose.form import find_delimiter, has_header, rows_of
from dmoe.data.prepare.propose.places import bytes_a_row, read_places
from dmoe.data.prepare.propose.sample import (
    Asked,
    Sample,
    cutting_schema,
    described,
    malformed,
    of_json,
    of_parquet,
    refuse_all,
    table_of,
)
from dmoe.data.prepare.rejects import BOM
from dmoe.data.prepare.source.containers import find_layers
from dmoe.data.prepare.source.log_files import MAX_ROW
from dmoe.data.prepare.source.raw_bytes import open_raw
from dmoe.errors import UserError


def read_sample(path: str, name: str, asked: Asked) -> Sample:
    """Samples a file.

    Args:
        name: how messages name the file.

    Raises:
        UserError: the file is empty, has no rows, is not text, has no clear delimiter, or has two columns with one name.
    """
    with open_raw(path) as file:
        magic = file.read(4)
    if magic == b"PAR1":
        return of_parquet(path, name, asked)
    _, start = find_layers(path, name, MAX_ROW + 1) if magic else ((), b"")
    text = start.removeprefix(BOM).lstrip()
    if not text:
        raise UserError(f"{name}: empty, no rows to read")
    if text[:1] == b"[":
        raise UserError(f"{name}: is a JSON array, expected an object a line; convert it: jq -c '.[]'")
    if text[:1] == b"{":
        if not text.partition(b"\n")[0].rstrip().endswith(b"}"):
            raise UserError(f"{name}: its first line is not a whole JSON object, expected an object a line; convert it: jq -c .")
        return of_json(path, name, start, asked)
    return _of_text(path, name, start, asked)


def _of_text(path: str, name: str, start: bytes, asked: Asked) -> Sample:
    start = start if len(start) <= MAX_ROW else start[: start.rfind(b"\n") + 1]
    if not start:
        raise UserError(f"{name}:1: a line longer than {MAX_ROW >> 20} MiB; is it text?")
    form, notes = _form(name, start.removeprefix(BOM).decode("utf-8", "replace"), asked)
    schema = cutting_schema(name, form)
    file = described(path, name, schema)
    found, told = read_places(file, schema.quote_bytes, asked.rows, bytes_a_row(start))
    rejects, blocks, kept = [], [], []
    for piece, number in found:
        block = TextBlock(file, schema, piece, number)
        # A position may be within a quoted field that holds line ends. Then the rows of the piece are wrong, and it is dropped.
        if number or 10 * len(block.rejects) <= block.lines:
            blocks.append(block)
            kept.append((file, piece, number))
        rejects += block.rejects
    rows = sum(len(one.line) for one in blocks)
    if not rows:
        if not rejects:
            raise UserError(f"{name}: a header and no rows, expected some to propose a schema from")
        raise refuse_all(name, rejects)
    texts = {one: pa.chunked_array([block.tokens(one).dictionary_decode() for block in blocks]) for one in file.used}
    return Sample(file, *table_of(texts, rows), kept, form, notes, told, malformed(rejects, rows + len(rejects)))


def _form(name: str, text: str, asked: Asked) -> tuple[dict[str, Any], dict[str, str]]:
    """The keys of the schema that say how the text is split into fields, and the reasons, by key."""
    notes: dict[str, str] = {}
    others: dict[str, int] = {}
    delimiter = asked.delimiter
    if delimiter is None:
        delimiter, others = find_delimiter(name, text)
    if others:
        notes["format"] = "also fits: " + ", ".join(f"{one!r} ({fields} fields a line)" for one, fields in others.items())
    form: dict[str, Any] = {"format": "tsv" if delimiter == "\t" else "csv"}
    if delimiter not in "\t,":
        form["delimiter"] = delimiter
    if delimiter not in ",;" and not any(f'{before}"' in f"\n{text}" for before in ("\n", delimiter)):
        form["quote"], notes["quote"] = None, "no field begins with a quote"
    rows = [row for row in rows_of(text, delimiter, form.get("quote", '"') or "") if row]
    if asked.columns:
        header, why = bool(asked.header), "--columns"
        if header:
            raise UserError("--columns gives names to a log without a header; leave one of --columns and --header yes out")
    elif asked.header is not None:
        header, why = asked.header, "--header"
    else:
        header, why = has_header(rows) if len(rows) > 1 else (True, "")
    if len(rows) < 1 + header:
        raise UserError(f"{name}: one line, expected more to propose a schema from")
    if not header:
        names = list(asked.columns) or [f"column_{number}" for number in range(1, len(rows[0]) + 1)]
        if len(names) != len(rows[0]):
            raise UserError(f"{name}: --columns names {len(names)} columns, and its first line has {len(rows[0])} fields")
        form |= {"header": False, "columns": names}
        notes["header"] = why + "; --columns gives other names" * (not asked.columns)
    return form, notes
