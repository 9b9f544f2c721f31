"""The compiled loops of the parser of typed text: from lines to columns of numbers, and from these to dictionary-encoded columns."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmoe.data.prepare.parse.typed_lines import INTEGER_LIMIT, LONG_LIMIT
from dmoe.data.prepare.rejects import MAX_LINE
from dmoe.data.prepare.tokens.byte_words import load
from dmoe.processes.compiled import compiled

NO_LABEL = 255
"""Stands for a label that cannot be read, if the log needs none (Layout.any_label)."""


def _digit_table() -> NDArray[np.uint8]:
    table = np.full(256, 255, np.uint8)
    for digit, byte in enumerate(b"0123456789abcdef"):
        table[byte] = digit
    table[np.frombuffer(b"ABCDEF", np.uint8)] = np.arange(10, 16)
    return table


DIGITS = _digit_table()


@compiled
def eight_hex_digits(word: np.uint64) -> np.int64:
    """The number with the eight hex digits in `word` (the first digit in the lowest byte); -1 if some byte is no hex digit."""
    high, ones = np.uint64(0x8080808080808080), np.uint64(0x0101010101010101)
    # All bytes are below 0x80, so no addition carries into the next byte. Adding 0x80 - c sets the highest bit of bytes >= c.
    lower = word | (ones * np.uint64(0x20))
    is_digit = (word + ones * np.uint64(0x80 - 0x30)) & ~(word + ones * np.uint64(0x80 - 0x3A))
    is_letter = (lower + ones * np.uint64(0x80 - 0x61)) & ~(lower + ones * np.uint64(0x80 - 0x67))
    if word & high or (is_digit | is_letter) & high != high:
        return np.int64(-1)
    # Bit 6 is set in letters; the low four bits of A and a are 1.
    x = (word & (ones * np.uint64(0x0F))) + np.uint64(9) * ((word >> np.uint64(6)) & ones)
    x = ((x << np.uint64(4)) | (x >> np.uint64(8))) & np.uint64(0x00FF00FF00FF00FF)
    x = ((x << np.uint64(8)) | (x >> np.uint64(16))) & np.uint64(0x0000FFFF0000FFFF)
    return np.int64(((x << np.uint64(16)) | (x >> np.uint64(32))) & np.uint64(0xFFFFFFFF))


@compiled
def parse_lines(
    text: NDArray[np.uint8],
    at: int,
    limit: int,
    delimiter: int,
    kinds: NDArray[np.int64],
    places: NDArray[np.int64],
    any_label: bool,
    digits: NDArray[np.uint8],
    label: NDArray[np.uint8],
    raw: NDArray[Any],
    missing: NDArray[np.uint64],
    bad: NDArray[np.int64],
) -> tuple[int, int, int, int]:
    """Parses lines from `at` until a line would begin at `limit`, or a buffer is full; returns (next position, rows, lines, bad lines).

    `text` ends with a byte that no field holds, so no loop runs past its end. Indices are unsigned because numba checks signed ones for
    being negative, which takes a sixth of the time. The rows of `bad` are (line, start, end, too long).
    """
    rows, lines, bads, fields = 0, 0, 0, len(kinds)
    while at < limit and rows < len(label) and bads < len(bad):
        start, good, empty = at, True, np.uint64(0)
        for f in range(fields):
            kind, place = kinds[f], places[f]
            first = at
            value = np.int64(0)
            if kind == 1 and any_label:
                while text[at] != delimiter and text[at] != 10 and 0 < text[at] < 128:
                    at += 1
                if f == fields - 1 and at > first and text[at - 1] == 13:
                    at -= 1
                value = np.int64(text[first]) - 48 if at - first == 1 else np.int64(NO_LABEL)
                if value < 0 or value > 1:
                    value = np.int64(NO_LABEL)
            elif kind == 3:
                if at + 8 <= len(text):
                    value = eight_hex_digits(load(text, at))
                    at += 8 * (value >= 0)
                    value = max(value, np.int64(0))
                while True:
                    digit = digits[text[np.uintp(at)]]
                    if digit > 15:
                        break
                    value = (value << 4) | np.int64(digit)
                    at += 1
                if at - first > 8:
                    good = False
                    break
            elif kind > 0:
                largest = np.uint64(LONG_LIMIT if kind == 4 else INTEGER_LIMIT)
                most, number = largest // np.uint64(10), np.uint64(0)
                negative = text[np.uintp(at)] == 45
                if negative:
                    at += 1
                while number <= most:
                    digit = digits[text[np.uintp(at)]]
                    if digit > 9:
                        break
                    number = number * np.uint64(10) + np.uint64(digit)
                    at += 1
                # If digits are left over, the check for the delimiter below refuses the line.
                if number > largest or (negative and at - first == 1):
                    good = False
                    break
                value = np.int64(number)
                if negative:
                    value = -value
            else:
                while text[at] != delimiter and text[at] != 10 and text[at] != 0 and text[at] < 128:
                    at += 1
            if kind == 1:
                if not any_label and (at - first != 1 or value > 1):
                    good = False
                    break
                label[rows] = value
            elif kind > 1:
                raw[np.uintp(place), np.uintp(rows)] = value
                if at == first:
                    empty |= np.uint64(1) << np.uint64(place)
            if f < fields - 1:
                if text[np.uintp(at)] != delimiter:
                    good = False
                    break
            elif text[at] == 13:
                at += 1
            at += 1
        lines += 1
        if good and text[at - 1] == 10 and at - 1 - start <= MAX_LINE:
            missing[rows] = empty
            rows += 1
            continue
        end = start
        while end < len(text) and text[end] != 10 and end - start <= MAX_LINE:
            end += 1
        too_long = end - start > MAX_LINE or end == len(text)
        bad[bads, 0], bad[bads, 1], bad[bads, 2], bad[bads, 3] = lines, start, end, too_long
        bads += 1
        while end < len(text) and text[end] != 10:
            end += 1
        at = end + 1
    return at, rows, lines, bads


@compiled
def encode_columns(
    raw: NDArray[Any],
    missing: NDArray[np.uint64],
    rows: int,
    slots: NDArray[np.uint16],
    codes: NDArray[np.uint16],
    sizes: NDArray[np.int64],
    values: NDArray[Any],
) -> int:
    """Dictionary-encodes the columns; returns the total number of dictionary values.

    Args:
        slots: memory of the hash table; its length is a power of two, at least 2 * rows.
        codes: receives the codes of each column; code 0 is missing.
        sizes: receives the size of each column's dictionary, with the entry for code 0.
        values: receives the dictionaries, one after another.
    """
    shift = np.uint64(64)
    size = len(slots)
    while size > 1:
        shift -= np.uint64(1)
        size >>= 1
    mask = len(slots) - 1
    base = 0
    for column in range(len(raw)):
        slots[:] = 0
        bit = np.uint64(1) << np.uint64(column)
        count = 0
        values[base] = 0
        for n in range(rows):
            if missing[n] & bit:
                codes[column, n] = 0
                continue
            value = raw[column, n]
            slot = np.int64((np.uint64(value) * np.uint64(0x9E3779B97F4A7C15)) >> shift)
            while True:
                code = np.int64(slots[slot])
                if code == 0:
                    count += 1
                    values[base + count] = value
                    slots[slot] = count
                    codes[column, n] = count
                    break
                if values[base + code] == value:
                    codes[column, n] = code
                    break
                slot = (slot + 1) & mask
        sizes[column] = count + 1
        base += count + 1
    return base
