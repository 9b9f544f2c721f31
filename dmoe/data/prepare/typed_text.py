"""The front end for typed text: lines of a label, integers and hex tokens become columns of codes, a group of rows at a time.

Within a group every column is coded by a dictionary of its own: codes are 16 bits, 0 where the field was empty, and code j > 0 stands for
the column's j-th distinct value. All later stages do their hash lookups and logarithms once a distinct value, not once a row.
"""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numba import njit
from numpy.typing import NDArray

from dmoe.data.prepare.blocks import Block, blocks
from dmoe.data.prepare.encode import LABEL, Encoded, Seen
from dmoe.data.prepare.rejects import MAX_LINE, Reject
from dmoe.data.prepare.schema import Schema
from dmoe.data.prepare.source import File
from dmoe.data.prepare.typed_lines import INTEGER_LIMIT, LONG_LIMIT, Layout, diagnose, layout_of
from dmoe.data.prepare.typed_lines import LABEL as LABEL_FIELD

NO_LABEL = 255
"""The label of a row that has none which can be read, where it needs none (Layout.any_label)."""
GROUP_ROWS = 65_535
"""Most rows of a group: each could bring a value of its own, and code 0 is taken."""
BAD_AT_ONCE = 4096
NULL_FIRST = pa.py_buffer(b"\xfe" + b"\xff" * (GROUP_ROWS // 8 + 1))
"""Validity of a dictionary: code 0 is null."""


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
    kinds: NDArray[np.int64],
    places: NDArray[np.int64],
    any_label: bool,
    digits: NDArray[np.uint8],
    label: NDArray[np.uint8],
    raw: NDArray[Any],
    missing: NDArray[np.uint64],
    bad: NDArray[np.int64],
) -> tuple[int, int, int, int]:
    """Parses lines from `at` on until one would begin at `limit` or a buffer is full; returns (next at, rows, lines, bad lines).

    `text` ends with a byte that no field holds, so no field runs out of it. `bad` rows are (line, start, end, too long).
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
                while True:
                    digit = digits[text[at]]
                    if digit > 15:
                        break
                    value = (value << 4) | np.int64(digit)
                    at += 1
                if at - first > 8:
                    good = False
                    break
            elif kind > 0:
                most = LONG_LIMIT // 10 if kind == 4 else INTEGER_LIMIT // 10
                negative = text[at] == 45
                if negative:
                    at += 1
                while True:
                    digit = digits[text[at]]
                    if digit > 9:
                        break
                    # Both limits end in 7.
                    if value > most or (value == most and digit > 7):
                        good = False
                        break
                    value = value * 10 + np.int64(digit)
                    at += 1
                if not good or (negative and at - first == 1):
                    good = False
                    break
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
                raw[place, rows] = value
                if at == first:
                    empty |= np.uint64(1) << np.uint64(place)
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
    raw: NDArray[Any],
    missing: NDArray[np.uint64],
    rows: int,
    slots: NDArray[np.uint16],
    codes: NDArray[np.uint16],
    sizes: NDArray[np.int64],
    values: NDArray[Any],
) -> int:
    """Fills each column's codes, and its dictionary of `sizes` values from code 0 on, one after another; returns how many there are.

    Args:
        slots: the hash table's room, a power of two of at least 2 * rows.
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


class _Scratch(threading.local):
    """The parser's buffers, one set a thread: a block's size in, groups out."""

    made_for: tuple[int, int, type] | None = None

    def fit(self, rows: int, columns: int, dtype: type) -> None:
        rows = min(max(rows, 16), GROUP_ROWS)
        if self.made_for != (rows, columns, dtype):
            self.label = np.zeros(rows, np.uint8)
            self.raw: NDArray[Any] = np.empty((columns, rows), dtype)
            self.missing = np.empty(rows, np.uint64)
            self.bad = np.empty((BAD_AT_ONCE, 4), np.int64)
            self.slots = np.empty(1 << (2 * rows - 1).bit_length(), np.uint16)
            self.values: NDArray[Any] = np.empty(columns * (rows + 1), dtype)
            self.made_for = rows, columns, dtype

    @property
    def filled(self) -> tuple[NDArray[Any], ...]:
        """What the parser fills."""
        return self.label, self.raw, self.missing, self.bad


scratch = _Scratch()


class TypedText:
    """Reads a log whose lines hold a label and typed columns alone (Schema.typed_columns), in blocks of whole lines, in any order."""

    def __init__(self, schema: Schema, labelled: bool, scoring: bool, block_bytes: int) -> None:
        self.schema, self.labelled, self.scoring, self.block_bytes = schema, labelled, scoring, block_bytes
        self.kinds = schema.typed_columns or {}
        self.dtype = np.uint64 if "int" in self.kinds.values() else np.uint32

    def pieces(self, file: File) -> Iterator[tuple[int, Callable[[], Block | None], int]]:
        before = 0
        for number, load, position in blocks(file, self.block_bytes):
            yield number, load, position - before
            before = position

    def anywhere(self, file: File) -> bool:
        """Whether a piece can be read without those before it."""
        return not file.compression

    def encode(self, file: File, load: Callable[[], Block | None]) -> Encoded:
        block, layout = load(), layout_of(file, self.schema, self.labelled, self.scoring)
        if block is None:
            return Encoded([], 0, [], 0, Seen())
        text, tail = block.text, None
        if block.end_of_file and not text.endswith(b"\n"):
            # The last line has no end: it may be half a line, which only `diagnose` can tell.
            last = text.rfind(b"\n") + 1
            if last >= block.start and last < block.limit and diagnose(text[last:], layout, terminated=False):
                text, tail = text[:last], text[last:]
            else:
                text += b"\n"
        at, limit = block.start, min(block.limit, len(text))
        buffer, found = np.frombuffer(text + b"\0", np.uint8), Encoded([], 0, [], 0, Seen())
        kinds, places = np.array(layout.kinds, np.int64), np.array(layout.places, np.int64)
        scratch.fit(self.block_bytes // len(layout.names) + 1, len(self.kinds), self.dtype)
        if LABEL_FIELD not in layout.kinds:
            scratch.label[:] = 0
        found.seen.unread["label"] = 0
        while at < limit:
            at, rows, lines, bads = _parse_lines(
                buffer, at, limit, layout.delimiter[0], kinds, places, layout.any_label, DIGITS, *scratch.filled
            )
            for line, start, end, too_long in scratch.bad[:bads].tolist():
                found.rejects.append(_reject(found.lines + line, text[start : min(end, start + MAX_LINE)], layout, True, bool(too_long)))
            found.lines += lines
            if rows:
                label_N = scratch.label[:rows]
                found.seen.unread["label"] += int((label_N == NO_LABEL).sum())
                label_N[label_N == NO_LABEL] = 0
                found.seen.positives += int(label_N.sum())
                found.batches.append(self._batch(rows))
        if tail is not None:
            found.lines += 1
            found.rejects.append(_reject(found.lines, tail[:MAX_LINE], layout, False, len(tail) > MAX_LINE))
        return found

    def _batch(self, rows: int) -> pa.RecordBatch:
        columns, slots = len(self.kinds), scratch.slots[: max(1 << (2 * rows - 1).bit_length(), 2)]
        codes, sizes = np.empty((columns, rows), np.uint16), np.empty(columns, np.int64)
        used = _encode(scratch.raw, scratch.missing, rows, slots, codes, sizes, scratch.values)
        values = np.split(scratch.values[:used].copy(), np.cumsum(sizes)[:-1])
        arrays = {LABEL: pa.array(scratch.label[:rows].copy())}
        for (name, kind), code_N, value in zip(self.kinds.items(), codes, values, strict=True):
            typed = (
                value.astype(np.uint32)
                if kind == "hex"
                else value.astype(np.uint32).view(np.int32)
                if kind == "number"
                else value.view(np.int64)
            )
            dictionary = pa.Array.from_buffers(pa.from_numpy_dtype(typed.dtype), len(typed), [NULL_FIRST, pa.py_buffer(typed)])
            indices = pa.Array.from_buffers(pa.uint16(), rows, [None, pa.py_buffer(code_N)])
            arrays[f"{kind}:{name}"] = pa.DictionaryArray.from_arrays(indices, dictionary, safe=False)
        return pa.RecordBatch.from_pydict(arrays)


def _reject(line: int, raw: bytes, layout: Layout, terminated: bool, too_long: bool) -> Reject:
    why = diagnose(raw, layout, terminated=terminated, too_long=too_long)
    if why is None:
        raise AssertionError(f"the parser refused a line that is well-formed: {raw!r}")
    return Reject(line, *why, raw.removesuffix(b"\r"))
