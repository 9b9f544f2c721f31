"""Malformed lines, and the files in which they are kept aside."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from dmoe.errors import UserError
from dmoe.names import file_name, printable
from dmoe.paths import write_atomic

REPEATED, REORDERED = "repeated header", "reordered header"
"""Kinds of a line that names the columns, as where files were joined. Behind one of another order rows would be read wrongly."""
BOM = b"\xef\xbb\xbf"
MAX_LINE = 4096
"""Bytes of the longest line that is looked at, without its end. A well-formed line has a tenth of that."""
HEADER = b"file\tline\tkind\treason\traw\n"


@dataclass(frozen=True)
class Reject:
    """A malformed line, or row of several: its first line's 1-based number, why, and its bytes without the end of line (of a long one, the
    first MAX_LINE)."""

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


def rejects_name(number: int, path: str) -> str:
    """The name of the file with an input's malformed lines; its place among the inputs keeps apart files of one name."""
    return f"{number:05d}-{file_name(os.path.basename(path))}.tsv"


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
            # A row of several lines is kept on one.
            raw = reject.raw.replace(b"\r\n", b"\n").replace(b"\n", b"\\n")
            file.write(said.encode("utf-8", "backslashreplace") + raw + b"\n")
            reject = next(iterator, None)
    return counts
