"""How the lines of a raw file are laid out: the delimiter and which column each field is, found by looking at its beginning."""

from collections import Counter
from dataclasses import dataclass

from dmoe.data.criteo import COLUMNS, FIELDS, LABEL
from dmoe.errors import UserError, nearest, printable

SNIFF_BYTES = 1 << 16
NO_LABEL = len(COLUMNS)
BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Layout:
    """Field f of a line is column `columns[f]`: -1 the label, 0..12 integers, 13..38 tokens (dmoe.data.criteo).

    Attributes:
        header_bytes: where the data begins, behind the header and a byte-order mark; `header_lines` of them come before it.
        any_label: a line is well-formed whatever its label is, since nobody needs it: the log is to be scored.
    """

    delimiter: bytes
    columns: tuple[int, ...]
    header_bytes: int = 0
    header_lines: int = 0
    any_label: bool = False

    @property
    def labelled(self) -> bool:
        return -1 in self.columns

    @staticmethod
    def name(column: int) -> str:
        return LABEL if column < 0 else COLUMNS[column]


def _from_header(path: str, line: bytes, delimiter: bytes, header_bytes: int) -> Layout:
    known = {name.lower(): column for column, name in enumerate(FIELDS, start=-1)}
    columns = []
    for field in line.decode("utf-8-sig", "replace").split(delimiter.decode()):
        name = field.strip().strip('"')
        if name.lower() not in known:
            raise UserError(f"{path}:1: column '{printable(name)}' is none of label, I1..I13, C1..C26{_near(name)}")
        if known[name.lower()] in columns:
            raise UserError(f"{path}:1: column '{name}' is there twice")
        columns.append(known[name.lower()])
    missing = [FIELDS[column + 1] for column in range(NO_LABEL) if column not in columns]
    if missing:
        raise UserError(f"{path}:1: the header lacks {', '.join(missing)}; expected label, I1..I13, C1..C26 in any order")
    return Layout(delimiter, tuple(columns), header_bytes, 1)


def _near(name: str) -> str:
    hint = nearest(name, FIELDS)
    return hint if hint.startswith(", did") else ""


def sniff(path: str, start: bytes) -> Layout:
    """The layout of a file that begins with `start`.

    A header is told by a field `label` or `I1` (any case; neither can be data). Without one the columns are in Criteo's order;
    the label is taken to be absent where 39 fields are seen among the first lines, and 40 never.

    Raises:
        UserError: a header with an unknown, doubled or missing column.
    """
    lines = start.split(b"\n")
    first = lines[0].rstrip(b"\r")
    delimiter = b"\t" if b"\t" in first or b"," not in first else b","
    mark = BOM if first.startswith(BOM) else b""
    names = {field.strip().strip(b'"').lower() for field in first.removeprefix(mark).split(delimiter)}
    if names & {b"label", b"i1"}:
        return _from_header(path, first, delimiter, len(lines[0]) + 1)
    fields = Counter(line.count(delimiter) + 1 for line in lines[:64] if line)
    unlabelled = fields[NO_LABEL] > 0 and not fields[NO_LABEL + 1]
    return Layout(delimiter, tuple(range(0 if unlabelled else -1, NO_LABEL)), len(mark))
