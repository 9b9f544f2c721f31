"""Finds the ends of the records of a quoted text. A quoted field may hold line ends (RFC 4180).

A record ends at the first line end that is not in quotes. If a quote is wrong (text follows the closing quote, or no quote closes within
the longest record), the record is only its first line, so that a stray quote costs one line and not the rest of the file. Both rules
depend only on the bytes from the start of the record, not on how a file is cut into pieces.
"""

import numpy as np
from numpy.typing import NDArray

from dmoe.data.prepare.rejects import BOM
from dmoe.data.prepare.tokens.byte_words import find
from dmoe.processes.compiled import compiled

NEWLINE, RETURN = np.uint8(10), np.uint8(13)
BOM_FIRST, BOM_SECOND, BOM_THIRD = BOM


def cut_at_record(text: bytes, delimiter: bytes, quote: bytes, longest: int, ended: bool) -> int:
    """Number of bytes of `text` that are complete records. `text` begins with a record; 0 if that record is not complete.

    Args:
        quote: empty if the text has no quotes.
        longest: most bytes of a record.
        ended: nothing follows `text`, so its end is the end of a record.
    """
    if ended:
        return len(text)
    if not quote or quote not in text:
        return text.rfind(b"\n") + 1
    return int(_cut(np.frombuffer(text, np.uint8), np.uint8(delimiter[0]), np.uint8(quote[0]), longest))


def first_record(text: bytes, delimiter: bytes, quote: bytes, longest: int) -> bytes:
    """The first record of a text, without its line end."""
    line = text.find(b"\n")
    while line >= 0 and not (found := cut_at_record(text[: line + 1], delimiter, quote, longest, False)):
        if line > longest:
            break
        line = text.find(b"\n", line + 1)
    if line < 0:
        # No complete record: the first line.
        return text.partition(b"\n")[0]
    return text[: found - 1] if found else text.partition(b"\n")[0]


@compiled
def _after_last_line(text: NDArray[np.uint8], at: int, end: int) -> int:
    """Position after the last line end in at .. end - 1; -1 if there is none."""
    while end > at:
        end -= 1
        if text[end] == NEWLINE:
            return end + 1
    return -1


@compiled
def _cut(text: NDArray[np.uint8], delimiter: np.uint8, quote: np.uint8, longest: int) -> int:
    size, record, at = len(text), 0, 0
    # `at` is outside quotes, in the record that begins at `record` or in a later one.
    while True:
        found = find(text, at, len(text), quote)
        behind = _after_last_line(text, at, found)
        record = behind if behind >= 0 else record
        if found == size:
            return record
        begin = record
        if begin + 2 < size and text[begin] == BOM_FIRST and text[begin + 1] == BOM_SECOND and text[begin + 2] == BOM_THIRD:
            begin += 3
        at = found + 1
        if found != begin and text[found - 1] != delimiter:
            continue
        close, closed = find(text, at, len(text), quote), False
        while close < size and close - begin <= longest:
            if close + 1 < size and text[close + 1] == quote:
                close = find(text, close + 2, len(text), quote)
                continue
            closed = True
            break
        if closed:
            at = close + 1
            if at == size or (text[at] == RETURN and at + 1 == size):
                return record
            if text[at] == delimiter or text[at] == NEWLINE or (text[at] == RETURN and text[at + 1] == NEWLINE):
                continue
        elif size - begin <= longest:
            return record
        line = find(text, record, len(text), NEWLINE)
        if line == size:
            return record
        record = at = line + 1
