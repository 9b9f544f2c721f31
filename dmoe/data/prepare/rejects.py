"""Malformed lines, and the files in which they are kept aside."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

MAX_LINE = 4096
"""Bytes of the longest line that is looked at, without its end. A well-formed line has a tenth of that."""
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
    target = os.path.join(folder, f"{number:05d}-{os.path.basename(path)}.tsv")
    with open(target + ".tmp", "wb") as file:
        file.write(HEADER)
        reject: Reject | None = first
        while reject:
            counts[reject.kind] += 1
            file.write(os.fsencode(f"{path}\t{reject.line}\t{reject.kind}\t{reject.reason}\t") + reject.raw + b"\n")
            reject = next(iterator, None)
    os.replace(target + ".tmp", target)
    return counts
