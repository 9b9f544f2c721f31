"""Malformed lines: why a line is malformed, and the files in which such lines are kept aside.

`diagnose` is the definition of a well-formed line, in plain Python; the parser (dmoe.data.parse) is its fast equal and calls for it
only where it met something that it did not expect.
"""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from dmoe.data.layout import Layout
from dmoe.names import file_name
from dmoe.paths import write_atomic

KINDS = ("fields", "label", "integer", "token", "encoding", "truncated", "long")
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


def shown(field: bytes) -> str:
    """The field for a message: quoted, escaped, cut at 24 characters."""
    text = field.decode("ascii", "backslashreplace")
    return repr(text if len(text) <= 24 else text[:21] + "...")


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
            if field not in (b"0", b"1"):
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


def write_rejects(folder: str, number: int, path: str, rejects: Iterable[Reject]) -> Counter[str]:
    """Writes the malformed lines of one input file, where it has any, and counts them by kind.

    Args:
        number: the input file's place among the inputs, which keeps apart files of one name.
    """
    counts: Counter[str] = Counter()
    iterator: Iterator[Reject] = iter(rejects)
    first = next(iterator, None)
    if first is None:
        return counts
    os.makedirs(folder, exist_ok=True)
    with write_atomic(os.path.join(folder, f"{number:05d}-{file_name(os.path.basename(path))}.tsv"), sync=False) as file:
        file.write(HEADER)
        reject: Reject | None = first
        while reject:
            counts[reject.kind] += 1
            file.write(os.fsencode(f"{path}\t{reject.line}\t{reject.kind}\t{reject.reason}\t") + reject.raw + b"\n")
            reject = next(iterator, None)
    return counts
