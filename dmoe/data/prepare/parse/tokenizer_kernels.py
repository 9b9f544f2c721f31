"""The compiled loops of the tokenizer of quoted text (dmoe.data.prepare.parse.tokenizer)."""

import numpy as np
from numpy.typing import NDArray

from dmoe.data.prepare.source.record_ends import BOM_FIRST, BOM_SECOND, BOM_THIRD, NEWLINE, RETURN
from dmoe.data.prepare.tokens.byte_words import load, same_bytes, trailing_zeros
from dmoe.data.prepare.tokens.texts import Texts
from dmoe.processes.compiled import compiled

CHUNK = 1 << 16
"""Bytes that are searched for delimiters, quotes and line ends ("marks") at a time, so that they fit into the CPU's cache."""
OPEN, UNREADABLE, HEADER = -1, -2, -3


@compiled
def _marks(
    text: NDArray[np.uint8],
    begin: int,
    end: int,
    delimiter: np.uint8,
    quote: np.uint8,
    flags: NDArray[np.uint8],
    marks: NDArray[np.int32],
) -> int:
    """Writes the positions of delimiters, line ends and quotes in begin .. end - 1 to `marks`; returns their number."""
    size = end - begin
    for i in range(size):
        byte = text[np.uintp(begin + i)]
        flags[i] = np.uint8(byte == delimiter) | np.uint8(byte == NEWLINE) | np.uint8(byte == quote)
    flags[size : size + 8] = 0
    found = 0
    for i in range(0, size, 8):
        word = load(flags, i)
        while word:
            marks[found] = begin + i + (trailing_zeros(word) >> 3)
            found += 1
            word &= word - np.uint64(1)
    return found


@compiled
def _unquoted(text: NDArray[np.uint8], at: int, end: int, quote: np.uint8) -> int:
    """Replaces each pair of quotes in at .. end - 1 by one, in place; returns the new end."""
    to = at
    while at < end:
        text[to] = text[at]
        at += 1 + (text[at] == quote)
        to += 1
    return to


@compiled
def _are_names(text: NDArray[np.uint8], first: NDArray[np.int32], end: NDArray[np.int32], names: Texts) -> bool:
    """Whether the fields are the names of the columns, in any order."""
    taken = np.zeros(len(first), np.bool_)
    for i in range(len(first)):
        size, found = end[i] - first[i], False
        for j in range(len(first)):
            at = names.edges[j]
            if not taken[j] and names.edges[j + 1] - at == size and same_bytes(text, first[i], names.data, at, size):
                taken[j] = found = True
                break
        if not found:
            return False
    return True


@compiled
def split_text(
    text: NDArray[np.uint8],
    size: int,
    delimiter: np.uint8,
    quote: np.uint8,
    longest: int,
    unreadable: NDArray[np.int64],
    place_of: NDArray[np.int32],
    names: Texts,
    filled: tuple[NDArray[np.int32], ...],
) -> tuple[int, int, int]:
    """Fills arrays from text[:size], which ends with a line end; returns (rows, lines, malformed records).

    Args:
        quote: equal to the delimiter if there are no quotes.
        longest: most bytes of a record.
        unreadable: numbers of unreadable lines, ascending.
        place_of: for each field of a line, its index among the columns that are read; -1 if it is not read.
        names: of the columns.
        filled: first, end, line, begins, ends and bad of tokenizer.Spans.
    """
    first, end, line, begins, ends, bad = filled
    width, quoting = len(place_of), quote != delimiter
    flags, marks = np.empty(CHUNK + 8, np.uint8), np.empty(CHUNK, np.int32)
    field_first, field_end = np.empty(width, np.int32), np.empty(width, np.int32)
    field_doubled = np.empty(width, np.bool_)
    rows, lines, bads, skip, chunk, reach = 0, 0, 0, 0, 0, CHUNK
    while chunk < size:
        # A chunk ends after a line end. A longer line is a chunk of its own.
        stop = min(chunk + reach, size)
        while stop > chunk and text[stop - 1] != NEWLINE:
            stop -= 1
        if stop == chunk:
            stop = min(chunk + reach, size)
            while text[stop - 1] != NEWLINE:
                stop += 1
        if stop - chunk > len(marks):
            flags, marks = np.empty(stop - chunk + 8, np.uint8), np.empty(stop - chunk, np.int32)
        found = _marks(text, chunk, stop, delimiter, quote, flags, marks)
        begin, mark = chunk, 0
        while mark < found:
            record, first_mark = begin, mark
            if text[begin] == BOM_FIRST and text[begin + 1] == BOM_SECOND and text[begin + 2] == BOM_THIRD:
                # Also within a file, if files were joined.
                begin += 3
            fields, wrong, at, characters, more_lines, any_doubled = 0, False, begin, 0, 0, False
            while True:
                doubled, close = False, -1
                if quoting and text[at] == quote:
                    mark += 1
                    while mark < found:
                        if text[marks[mark]] == quote:
                            if text[marks[mark] + 1] != quote:
                                close = marks[mark]
                                break
                            doubled = True
                            mark += 1
                        else:
                            more_lines += text[marks[mark]] == NEWLINE
                        mark += 1
                    mark += 1
                    if close < 0 or close - begin > longest:
                        wrong = True
                        break
                while text[marks[mark]] == quote and quoting:
                    mark += 1
                stop_at = marks[mark]
                last = text[stop_at] == NEWLINE
                before = stop_at
                if last and stop_at > begin and text[stop_at - 1] == RETURN:
                    before -= 1
                if close >= 0:
                    if before != close + 1:
                        wrong = True
                        break
                    at += 1
                    before = close
                characters += before - at
                if fields < width:
                    field_first[fields], field_end[fields], field_doubled[fields] = at, before, doubled
                    any_doubled |= doubled
                    column = place_of[fields]
                    if column >= 0:
                        first[column, rows], end[column, rows] = at, before
                fields += 1
                mark += 1
                if last:
                    break
                at = stop_at + 1
            if wrong and close < 0 and stop < size and stop - begin <= longest:
                # The closing quote may be after the chunk.
                begin = record
                break
            if wrong:
                mark, more_lines = first_mark, 0
                while text[marks[mark]] != NEWLINE:
                    mark += 1
                mark += 1
            newline = marks[mark - 1]
            line_end = newline - (newline > begin and text[newline - 1] == RETURN)
            kind = fields if not wrong else OPEN
            while skip < len(unreadable) and unreadable[skip] <= lines + more_lines:
                skip += 1
                kind = UNREADABLE
            if line_end - begin > longest:
                kind = UNREADABLE
            if kind == width and any_doubled:
                # Only now that the record is complete: an incomplete one is read again, and its text must be unchanged.
                for field in range(width):
                    if field_doubled[field]:
                        before = _unquoted(text, field_first[field], field_end[field], quote)
                        characters -= field_end[field] - before
                        field_end[field] = before
                        if place_of[field] >= 0:
                            end[place_of[field], rows] = before
            if kind == width and characters == len(names.data) and _are_names(text, field_first, field_end, names):
                kind = HEADER
            if kind == width:
                line[rows], begins[rows], ends[rows] = lines, begin, line_end
                rows += 1
            else:
                bad[bads, 0], bad[bads, 1], bad[bads, 2], bad[bads, 3] = lines, begin, line_end, kind
                bads += 1
            lines += 1 + more_lines
            begin = newline + 1
        reach = 2 * reach if begin == chunk else CHUNK
        chunk = begin
    return rows, lines, bads
