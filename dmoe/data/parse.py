"""Raw bytes -> typed columns, a group of rows at a time.

Within a group every column is coded by a dictionary of its own: `codes` are 16 bits, 0 where the field was empty, and code j > 0
stands for the column's j-th distinct value. All later stages do their hash lookups and logarithms once a distinct value, not once a row.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dmoe.data import tables
from dmoe.data.criteo import INTEGERS
from dmoe.data.inputs import Block
from dmoe.data.layout import Layout
from dmoe.data.rejects import INTEGER_LIMIT, MAX_LINE, diagnose

NO_LABEL = 255
"""The label of a row that has none which can be read, where it needs none (Layout.any_label)."""
GROUP_ROWS = 65_535
"""Most rows of a group: each could bring a value of its own, and code 0 is taken."""
BAD_AT_ONCE = 4096


@dataclass
class Group:
    """N rows: `label` [N] uint8 (0, 1 or NO_LABEL), `codes` [39, N] uint16, `sizes` [39] the columns' distinct values, `values` uint32
    one column after another (an integer's two's complement, a token's hex value)."""

    label: NDArray[np.uint8]
    codes: NDArray[np.uint16]
    sizes: NDArray[np.int64]
    values: NDArray[np.uint32]


def token_columns(group: Group) -> list[NDArray[np.uint32]]:
    """The distinct tokens of each categorical feature of a data set, in the order of their codes."""
    values = np.split(group.values, np.cumsum(group.sizes)[:-1])
    return [*values[len(INTEGERS) :], *(tables.buckets(column) for column in values[: len(INTEGERS)])]


@dataclass
class Parsed:
    """What a block held. `bad` are its malformed lines as (1-based line number in the block, bytes, terminated, too long)."""

    lines: int
    groups: list[Group]
    bad: list[tuple[int, bytes, bool, bool]]

    @property
    def rows(self) -> int:
        return sum(len(group.label) for group in self.groups)


def _digit_table() -> NDArray[np.uint8]:
    table = np.full(256, 255, np.uint8)
    for digit, byte in enumerate(b"0123456789abcdef"):
        table[byte] = digit
    table[np.frombuffer(b"ABCDEF", np.uint8)] = np.arange(10, 16)
    return table


DIGITS = _digit_table()


@njit(nogil=True, cache=True)
def _parse_lines(
    text: NDArray[np.uint8],
    at: int,
    limit: int,
    delimiter: int,
    columns: NDArray[np.int64],
    any_label: bool,
    digits: NDArray[np.uint8],
    label: NDArray[np.uint8],
    raw: NDArray[np.uint32],
    missing: NDArray[np.uint64],
    bad: NDArray[np.int64],
) -> tuple[int, int, int, int]:
    """Parses lines from `at` on until one would begin at `limit` or a buffer is full; returns (next at, rows, lines, bad lines).

    `text` ends with a byte that no field holds, so no field runs out of it. `bad` rows are (line, start, end, too long).
    """
    rows, lines, bads, fields = 0, 0, 0, len(columns)
    while at < limit and rows < len(label) and bads < len(bad):
        start, good, empty = at, True, np.uint64(0)
        for f in range(fields):
            column = columns[f]
            first = at
            value = np.int64(0)
            if column < 0 and any_label:
                while text[at] != delimiter and text[at] != 10 and 0 < text[at] < 128:
                    at += 1
                if f == fields - 1 and at > first and text[at - 1] == 13:
                    at -= 1
                value = np.int64(text[first]) - 48 if at - first == 1 else np.int64(NO_LABEL)
                if value < 0 or value > 1:
                    value = np.int64(NO_LABEL)
            elif column >= 13:
                while True:
                    digit = digits[text[at]]
                    if digit > 15:
                        break
                    value = (value << 4) | np.int64(digit)
                    at += 1
                if at - first > 8:
                    good = False
                    break
            else:
                negative = text[at] == 45
                if negative:
                    at += 1
                while True:
                    digit = digits[text[at]]
                    if digit > 9:
                        break
                    value = value * 10 + np.int64(digit)
                    if value > INTEGER_LIMIT:
                        break
                    at += 1
                if value > INTEGER_LIMIT or (negative and at - first == 1):
                    good = False
                    break
                if negative:
                    value = -value
            if column < 0:
                if not any_label and (at - first != 1 or value > 1):
                    good = False
                    break
                label[rows] = value
            else:
                raw[column, rows] = np.uint32(value & 0xFFFFFFFF)
                if at == first:
                    empty |= np.uint64(1) << np.uint64(column)
            if f < fields - 1:
                if text[at] != delimiter:
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


@njit(nogil=True, cache=True)
def _encode(
    raw: NDArray[np.uint32],
    missing: NDArray[np.uint64],
    rows: int,
    slots: NDArray[np.uint16],
    codes: NDArray[np.uint16],
    sizes: NDArray[np.int64],
    values: NDArray[np.uint32],
) -> int:
    """Fills codes, sizes and values of a Group; `slots` is the hash table's room, a power of two of at least 2 * rows."""
    shift = np.uint64(64)
    size = len(slots)
    while size > 1:
        shift -= np.uint64(1)
        size >>= 1
    mask = len(slots) - 1
    base = 0
    for column in range(39):
        slots[:] = 0
        bit = np.uint64(1) << np.uint64(column)
        count = 0
        for n in range(rows):
            if missing[n] & bit:
                codes[column, n] = 0
                continue
            value = raw[column, n]
            slot = np.int64((np.uint64(value) * np.uint64(0x9E3779B97F4A7C15)) >> shift)
            while True:
                code = np.int64(slots[slot])
                if code == 0:
                    values[base + count] = value
                    count += 1
                    slots[slot] = count
                    codes[column, n] = count
                    break
                if values[base + code - 1] == value:
                    codes[column, n] = code
                    break
                slot = (slot + 1) & mask
        sizes[column] = count
        base += count
    return base


class Scratch:
    """The parser's buffers, one set a thread: a block's size in, groups out."""

    def __init__(self, rows: int) -> None:
        self.rows = min(max(rows, 16), GROUP_ROWS)
        self.label = np.zeros(self.rows, np.uint8)
        self.raw = np.empty((39, self.rows), np.uint32)
        self.missing = np.empty(self.rows, np.uint64)
        self.bad = np.empty((BAD_AT_ONCE, 4), np.int64)
        self.slots = np.empty(1 << (2 * self.rows - 1).bit_length(), np.uint16)
        self.values = np.empty(39 * self.rows, np.uint32)


def _group(scratch: Scratch, rows: int) -> Group:
    slots = scratch.slots[: max(1 << (2 * rows - 1).bit_length(), 2)]
    codes, sizes = np.empty((39, rows), np.uint16), np.empty(39, np.int64)
    used = _encode(scratch.raw, scratch.missing, rows, slots, codes, sizes, scratch.values)
    return Group(scratch.label[:rows].copy(), codes, sizes, scratch.values[:used].copy())


def parse_block(block: Block, layout: Layout, scratch: Scratch) -> Parsed:
    """Parses a block of a raw file.

    Args:
        scratch: buffers of this thread; their contents do not matter.
    """
    text, tail = block.text, None
    if block.end_of_file and not text.endswith(b"\n"):
        # The last line has no end: it may be half a line, which only `diagnose` can tell.
        last = text.rfind(b"\n") + 1
        if last >= block.start and last < block.limit and diagnose(text[last:], layout, terminated=False):
            text, tail = text[:last], text[last:]
        else:
            text += b"\n"
    limit = min(block.limit, len(text))
    buffer = np.frombuffer(text + b"\0", np.uint8)
    columns = np.array(layout.columns, np.int64)
    at, parsed = block.start, Parsed(0, [], [])
    while at < limit:
        at, rows, lines, bads = _parse_lines(
            buffer,
            at,
            limit,
            layout.delimiter[0],
            columns,
            layout.any_label,
            DIGITS,
            scratch.label,
            scratch.raw,
            scratch.missing,
            scratch.bad,
        )
        for line, start, end, too_long in scratch.bad[:bads].tolist():
            parsed.bad.append((parsed.lines + line, text[start : min(end, start + MAX_LINE)], True, bool(too_long)))
        parsed.lines += lines
        if rows:
            parsed.groups.append(_group(scratch, rows))
    if tail is not None:
        parsed.lines += 1
        parsed.bad.append((parsed.lines, tail[:MAX_LINE], False, len(tail) > MAX_LINE))
    return parsed
