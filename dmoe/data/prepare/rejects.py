"""Malformed lines, and the files that keep them."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from dmoe.errors import UserError
from dmoe.names import file_name, printable
from dmoe.storage.paths import write_atomic

REPEATED, REORDERED = "repeated header", "reordered header"
"""Kinds of a header line within a file, which occurs where files were joined. After a header in another order, rows would be read
wrongly."""
BOM = b"\xef\xbb\xbf"
MAX_LINE = 4096
"""Longest line of typed text, and longest excerpt of a malformed line that is kept, in bytes without the line end. A well-formed line
of Criteo's log has about a tenth of that."""
HEADER = b"file\tline\tkind\treason\traw\n"


@dataclass(frozen=True)
class Reject:
    """A malformed row.

    Attributes:
        line: 1-based number of its first line.
        kind, reason: why it is malformed.
        raw: its bytes without the line end; only the first MAX_LINE bytes of a long one.
    """

    line: int
    kind: str
    reason: str
    raw: bytes


def shown(field: bytes | str) -> str:
    """A field for a message: in quotes, at most 24 characters, with control characters and bytes that are not UTF-8 escaped."""
    text = field if isinstance(field, str) else field.decode("utf-8", "backslashreplace")
    return f"'{printable(text if len(text) <= 24 else text[:21] + '...')}'"


def header_again(fields: Sequence[str], names: Sequence[str]) -> tuple[str, str] | None:
    """(kind, reason) if the fields of a line are the names of the columns; None otherwise."""
    if list(fields) == list(names):
        return REPEATED, "the header again"
    return (REORDERED, "a header with the columns in another order") if sorted(fields) == sorted(names) else None


def rejects_name(number: int, path: str) -> str:
    """File name for the malformed lines of an input. The input's number distinguishes inputs with the same name."""
    return f"{number:05d}-{file_name(os.path.basename(path))}.tsv"


def write_rejects(folder: str, number: int, path: str, rejects: Iterable[Reject]) -> Counter[str]:
    """Writes the malformed lines of one input file, if it has any, and counts them by kind.

    Args:
        number: position of the file among the inputs.

    Raises:
        UserError: the file holds a header with the columns in another order.
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
            # A row of several lines is written as one line.
            raw = reject.raw.replace(b"\r\n", b"\n").replace(b"\n", b"\\n")
            file.write(said.encode("utf-8", "backslashreplace") + raw + b"\n")
            reject = next(iterator, None)
    return counts
