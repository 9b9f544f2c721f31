"""Finds the delimiter of a text log, and whether its first line names the columns."""

import csv
import io
from collections import Counter
from collections.abc import Iterator, Sequence

from dmoe.data.prepare.encode.labels import NUMBER
from dmoe.data.prepare.propose.profile import NO_VALUE, PERHAPS
from dmoe.errors import UserError
from dmoe.names import printable

DELIMITERS = "\x01\t;,| "
"""Candidates. The first one that gives every line the same number of fields is chosen. Characters that are rare in fields come first."""
LINES = 200
CONSISTENT = 0.98
"""Share of the lines that must have the same number of fields. A few malformed lines do not exclude a delimiter."""


def find_delimiter(name: str, text: str) -> tuple[str, dict[str, int]]:
    """The delimiter, and other possible delimiters with their number of fields.

    Args:
        name: how messages name the file.
        text: complete lines from the start of the file.

    Raises:
        UserError: none of DELIMITERS gives all lines the same number of fields. Suggests a command if another separator does.
    """
    fits = {one: found for one in DELIMITERS if (found := _fields(text, one)) > 1}
    if fits.keys() - {" "}:
        fits.pop(" ", None)
    if fits:
        best = next(iter(fits))
        return best, {one: fields for one, fields in fits.items() if one != best}
    lines = text.split("\n")[:LINES]
    lines = [line for line in lines if line.strip()]
    if _same(line.count("::") for line in lines):
        raise UserError(f"{name}: fields are separated by '::', two characters, expected one; convert it: sed 's/::/\\t/g'")
    if _same(len(line.split()) - 1 for line in lines):
        raise UserError(f"{name}: fields are separated by several spaces, expected one character; convert it: tr -s ' ' '\\t'")
    said = ", ".join(repr(one) for one in DELIMITERS)
    raise UserError(
        f"{name}: none of the characters {said} gives all lines the same number of fields; name the delimiter with --delimiter (a log has"
        " at least a label and a feature)"
    )


def _same(counts: Iterator[int]) -> bool:
    found = Counter(counts)
    most, lines = max(found.items(), key=lambda one: one[1], default=(0, 0))
    return most > 0 and lines >= CONSISTENT * found.total()


def _fields(text: str, delimiter: str) -> int:
    """The number of fields that the first line and nearly every other line have; 0 if they differ."""
    found = [len(row) for row in rows_of(text, delimiter) if row]
    if not found:
        return 0
    most, lines = Counter(found).most_common(1)[0]
    return most if found[0] == most and lines >= CONSISTENT * len(found) else 0


def rows_of(text: str, delimiter: str, quote: str = '"', most: int = LINES) -> list[list[str]]:
    """The fields of the first rows."""
    lines = io.StringIO(text, newline="\n")
    style = {"quotechar": quote} if quote else {"quoting": csv.QUOTE_NONE}
    rows: list[list[str]] = []
    try:
        for row in csv.reader(lines, delimiter=delimiter, **style):
            rows.append(row)
            if len(rows) == most:
                break
    except csv.Error:
        pass
    return rows


def has_header(rows: list[list[str]]) -> tuple[bool, str]:
    """Whether the first row names the columns, and the reason."""
    first, body = rows[0], [row for row in rows[1:] if len(row) == len(rows[0])]
    if first == [str(number) for number in range(len(first))]:
        return True, "its first line numbers the columns"
    columns = list(zip(*body, strict=True))
    numbers = [field for field in first if _is_number(field)]
    names = [name for name, column in zip(first, columns, strict=False) if _above_numbers(name, column)]
    # One number in the first line may be the name of a column; then as many other names are above numbers.
    if names and len(names) >= len(numbers):
        return True, f"its first line has '{printable(names[0])[:30]}' above numbers"
    if numbers:
        return False, f"its first line holds a number, {printable(numbers[0])[:30]}"
    again = sum(name in column for name, column in zip(first, columns, strict=False) if name)
    if 2 * again > len(first):
        return False, "the values of its first line come again below"
    return True, "its first line has values that do not come again below"


def _above_numbers(name: str, column: Sequence[str]) -> bool:
    given = [field for field in column if field]
    names = bool(name) and not _is_number(name) and name not in NO_VALUE | PERHAPS and name not in column
    return names and sum(map(_is_number, given)) >= 0.8 * max(1, len(given))


def _is_number(text: str) -> bool:
    return NUMBER.fullmatch(text.strip()) is not None
