"""The grammar of typed text: which type each field of a line has, and why a line is malformed.

`diagnose` defines a well-formed line in plain Python. The compiled parser (dmoe.data.prepare.parse.typed_text) accepts the same lines, and
calls `diagnose` only for lines that it refuses.
"""

from dataclasses import dataclass

from dmoe.data.prepare.rejects import BOM, MAX_LINE, header_again, shown
from dmoe.data.prepare.schema import Schema
from dmoe.data.prepare.source.log_files import File

INTEGER_LIMIT, LONG_LIMIT = 2**31 - 1, 2**63 - 1
HEX = frozenset(b"0123456789abcdefABCDEF")
SKIP, LABEL, NUMBER, TOKEN_HEX, TOKEN_INT = range(5)
KINDS = {"number": NUMBER, "hex": TOKEN_HEX, "int": TOKEN_INT}


@dataclass(frozen=True)
class Layout:
    """The fields of a line.

    Attributes:
        names: column of each field.
        kinds: type of each field: SKIP, LABEL, NUMBER, TOKEN_HEX or TOKEN_INT.
        places: index of each field among the columns that the schema reads; -1 if it is not read.
        any_label: any text is a valid label. Used for a log to score, which needs no labels.
    """

    delimiter: bytes
    names: tuple[str, ...]
    kinds: tuple[int, ...]
    places: tuple[int, ...]
    any_label: bool = False


def layout_of(file: File, schema: Schema, labelled: bool, any_label: bool = False) -> Layout:
    """The layout of the lines of a file of typed text."""
    typed = schema.typed_columns or {}
    order = list(typed)
    kinds = [KINDS[typed[name]] if name in typed else LABEL if labelled and name == schema.label.column else SKIP for name in file.columns]
    places = tuple(order.index(name) if name in typed else -1 for name in file.columns)
    return Layout(file.delimiter, file.columns, tuple(kinds), places, any_label)


def diagnose(raw: bytes, layout: Layout, *, terminated: bool = True, too_long: bool = False) -> tuple[str, str] | None:
    """Why a line is malformed, as (kind, reason); None if it is well-formed.

    Args:
        raw: the line without its "\\n".
        terminated: whether a "\\n" follows. A last line without one may be incomplete, so it must have all fields, and a hex token at its
            end must have all eight digits.
        too_long: whether the line continues after `raw`.
    """
    if too_long or len(raw) > MAX_LINE:
        return "long", f"the line is longer than {MAX_LINE} bytes"
    raw = raw.removesuffix(b"\r")
    texts = [field.strip().strip('"').lower() for field in raw.removeprefix(BOM).decode("latin-1").split(layout.delimiter.decode())]
    if again := header_again(texts, [name.lower() for name in layout.names]):
        return again
    for at, byte in enumerate(raw):
        if byte == 0 or byte >= 0x80:
            return "encoding", f"byte 0x{byte:02x} at column {at + 1}, expected ASCII text"
    fields = raw.split(layout.delimiter)
    if len(fields) != len(layout.names):
        what = f"{len(fields)} field{'s' * (len(fields) != 1)}, expected {len(layout.names)}"
        return ("fields", what) if terminated else ("truncated", f"the file ends within the line: {what}")
    for field, name, kind in zip(fields, layout.names, layout.kinds, strict=True):
        if why := _wrong(field, SKIP if kind == LABEL and layout.any_label else kind):
            return why[0], f"{name} is {shown(field)}, expected {why[1]}"
    if not terminated and layout.kinds[-1] == TOKEN_HEX and 0 < len(fields[-1]) < 8:
        return "truncated", f"the file ends within the line: {layout.names[-1]} is {shown(fields[-1])}"
    return None


def _wrong(field: bytes, kind: int) -> tuple[str, str] | None:
    """(kind of the mistake, what is expected) if a field is malformed, else None."""
    if kind == LABEL:
        return None if field in (b"0", b"1") else ("label", "0 or 1")
    if kind == SKIP or not field:
        return None
    if kind == TOKEN_HEX:
        return None if len(field) <= 8 and HEX.issuperset(field) else ("token", "1 to 8 hex digits or nothing")
    digits = field.removeprefix(b"-")
    name, limit, bits = ("integer", INTEGER_LIMIT, 32) if kind == NUMBER else ("token", LONG_LIMIT, 64)
    if not digits.isdigit():
        return name, "an integer or nothing"
    # Python refuses to convert texts of more than a few thousand digits.
    return None if len(digits.lstrip(b"0")) <= 19 and int(digits) <= limit else (name, f"an integer of {bits} bits")
