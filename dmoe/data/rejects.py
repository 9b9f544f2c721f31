"""Malformed lines: why a line is malformed, and the files in which such lines are kept aside.

`diagnose` is the definition of a well-formed line, in plain Python; the parser (dmoe.data.parse) is its fast equal and calls for it
only where it met something that it did not expect.
"""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from dmoe.data.layout import BOM, Layout
from dmoe.errors import UserError
from dmoe.names import printable
from dmoe.paths import write_atomic

REPEATED, REORDERED = "repeated header", "reordered header"
"""Kinds of a line that names the columns, as where files were joined. Behind one of another order rows would be read wrongly."""
MAX_LINE = 4096
"""Bytes of the longest line that is looked at, without its end. A well-formed line has a tenth of that."""
INTEGER_LIMIT = 2**31 - 1
HEX = frozenset(b"0123456789abcdefABCDEF")
HEADER = b"file\tline\tkind\treason\traw\n"


@dataclass(frozen=True)
class Reject:
    """A malformed line: 1-based line number, why, and its bytes without the end of line (of a long one, the first MAX_LINE)."""

    line: int
    kind: str
    reason: str
    raw: bytes


def shown(field: bytes | str) -> str:
    """The field for a message: quoted, cut at 24 characters, and escaped where a terminal would act on it or bytes are no UTF-8."""
    text = field if isinstance(field, str) else field.decode("utf-8", "backslashreplace")
    return f"'{printable(text if len(text) <= 24 else text[:21] + '...')}'"


def header_again(fields: Sequence[str], names: Sequence[str]) -> tuple[str, str] | None:
    """(kind, reason) of a line whose fields are the columns' names; None for another line."""
    if list(fields) == list(names):
        return REPEATED, "the header again"
    return (REORDERED, "a header with the columns in another order") if sorted(fields) == sorted(names) else None


def _is_integer(field: bytes) -> bool:
    digits = field.removeprefix(b"-")
    return digits.isdigit() and int(digits) <= INTEGER_LIMIT


def diagnose(raw: bytes, layout: Layout, *, terminated: bool = True, too_long: bool = False) -> tuple[str, str] | None:
    """Why a line is malformed, as (kind, reason); None where it is well-formed.

    Args:
        raw: the line without its "\\n".
        terminated: whether a "\\n" followed. A last line without one may be half a line, so it must have all its fields, and all
            eight digits of its last token.
        too_long: the line goes on after `raw`.
    """
    if too_long or len(raw) > MAX_LINE:
        return "long", f"the line is longer than {MAX_LINE} bytes"
    raw = raw.removesuffix(b"\r")
    texts = [field.strip().strip('"').lower() for field in raw.removeprefix(BOM).decode("latin-1").split(layout.delimiter.decode())]
    if again := header_again(texts, [layout.name(column).lower() for column in layout.columns]):
        return again
    for at, byte in enumerate(raw):
        if byte == 0 or byte >= 0x80:
            return "encoding", f"byte 0x{byte:02x} at column {at + 1}, expected ASCII text"
    fields = raw.split(layout.delimiter)
    if len(fields) != len(layout.columns):
        what = f"{len(fields)} field{'s' * (len(fields) != 1)}, expected {len(layout.columns)}"
        return ("fields", what) if terminated else ("truncated", f"the file ends within the line: {what}")
    for field, column in zip(fields, layout.columns, strict=True):
        name = layout.name(column)
        if column < 0:
            if field not in (b"0", b"1") and not layout.any_label:
                return "label", f"{name} is {shown(field)}, expected 0 or 1"
        elif field and column < 13:
            if not _is_integer(field):
                large = field.removeprefix(b"-").isdigit()
                return "integer", f"{name} is {shown(field)}, expected " + ("an integer of 32 bits" if large else "an integer or nothing")
        elif field and (len(field) > 8 or not HEX.issuperset(field)):
            return "token", f"{name} is {shown(field)}, expected 1 to 8 hex digits or nothing"
    if not terminated and layout.columns[-1] >= 13 and 0 < len(fields[-1]) < 8:
        return "truncated", f"the file ends within the line: {layout.name(layout.columns[-1])} is {shown(fields[-1])}"
    return None


def rejects_name(number: int, path: str) -> str:
    """The name of the file with an input's malformed lines; its place among the inputs keeps apart files of one name."""
    return f"{number:05d}-{os.path.basename(path)}.tsv"


def write_rejects(folder: str, number: int, path: str, rejects: Iterable[Reject]) -> Counter[str]:
    """Writes the malformed lines of one input file, where it has any, and counts them by kind.

    Args:
        number: the input file's place among the inputs.

    Raises:
        UserError: the file has a header with the columns in another order.
    """
    counts: Counter[str] = Counter()
    iterator: Iterator[Reject] = iter(rejects)
    first = next(iterator, None)
    if first is None:
        return counts
    os.makedirs(folder, exist_ok=True)
    with write_atomic(os.path.join(folder, rejects_name(number, path)), sync=False) as file:
        file.write(HEADER)
        reject: Reject | None = first
        while reject:
            if reject.kind == REORDERED:
                raise UserError(f"{path}:{reject.line}: {reject.reason}; give what follows as a file of its own")
            counts[reject.kind] += 1
            said = f"{printable(path)}\t{reject.line}\t{reject.kind}\t{reject.reason}\t"
            file.write(said.encode("utf-8", "backslashreplace") + reject.raw + b"\n")
            reject = next(iterator, None)
    return counts
