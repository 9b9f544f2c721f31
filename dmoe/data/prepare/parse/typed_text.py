"""The front end for typed text: lines that hold a label, integers and hex tokens become dictionary-encoded columns.

Rows are encoded in groups. In a group each column has its own dictionary of 16-bit codes: code 0 is an empty field, and code j > 0 is
the column's j-th distinct value. Later stages therefore do hash lookups and logarithms once for each distinct value, not for each row.
"""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dmoe.data.prepare.encode.encode_rows import LABEL, Encoded, Seen
from dmoe.data.prepare.parse.typed_kernels import DIGITS, NO_LABEL, encode_columns, parse_lines
from dmoe.data.prepare.parse.typed_lines import LABEL as LABEL_FIELD
from dmoe.data.prepare.parse.typed_lines import Layout, diagnose, layout_of
from dmoe.data.prepare.rejects import MAX_LINE, Reject
from dmoe.data.prepare.schema import Schema
from dmoe.data.prepare.source.line_blocks import Block, blocks
from dmoe.data.prepare.source.log_files import File

GROUP_ROWS = 65_535
"""Most rows of a group: each row may have a value of its own, and code 0 is used for missing values."""
BAD_AT_ONCE = 4096
NULL_FIRST = pa.py_buffer(b"\xfe" + b"\xff" * (GROUP_ROWS // 8 + 1))
"""Validity bitmap of a dictionary: the value of code 0 is null."""


class _Scratch(threading.local):
    """The parser's buffers, one set for each thread."""

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
        """The buffers that the parser fills."""
        return self.label, self.raw, self.missing, self.bad


scratch = _Scratch()


class TypedText:
    """Reads a log with only a label and typed columns (Schema.typed_columns), in blocks of whole lines, in any order."""

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
        return not file.compression

    def parts(self, load: Callable[[], Block | None]) -> tuple[Callable[[], Block | None]]:
        return (load,)

    def encode(self, file: File, load: Callable[[], Block | None]) -> Encoded:
        block, layout = load(), layout_of(file, self.schema, self.labelled, self.scoring)
        if block is None:
            return Encoded([], 0, [], 0, Seen())
        text, tail = block.text, None
        if block.end_of_file and not text.endswith(b"\n"):
            # The last line has no line end, so it may be incomplete. `diagnose` decides.
            last = text.rfind(b"\n") + 1
            if last >= block.start and last < block.limit and diagnose(text[last:], layout, terminated=False):
                text, tail = text[:last], text[last:]
            else:
                text += b"\n"
        at, limit = block.start, min(block.limit, len(text))
        ended = text.rfind(b"\n") + 1
        # `parse_lines` needs a last byte that no field holds: a line end, or, if the block's last line is too long, a byte 0.
        buffer = np.frombuffer(text, np.uint8)[:ended] if ended >= limit else np.frombuffer(text + b"\0", np.uint8)
        found = Encoded([], 0, [], 0, Seen())
        kinds, places = np.array(layout.kinds, np.int64), np.array(layout.places, np.int64)
        scratch.fit(self.block_bytes // len(layout.names) + 1, len(self.kinds), self.dtype)
        if LABEL_FIELD not in layout.kinds:
            scratch.label[:] = 0
        found.seen.unread["label"] = 0
        while at < limit:
            at, rows, lines, bads = parse_lines(
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
        used = encode_columns(scratch.raw, scratch.missing, rows, slots, codes, sizes, scratch.values)
        values = np.split(scratch.values[:used].copy(), np.cumsum(sizes)[:-1])
        arrays = {LABEL: pa.array(scratch.label[:rows].copy())}
        for (name, kind), code_N, value in zip(self.kinds.items(), codes, values, strict=True):
            typed: NDArray[Any] = value.view(np.int64) if kind == "int" else value.astype(np.uint32, copy=False)
            typed = typed.view(np.int32) if kind == "number" else typed
            dictionary = pa.Array.from_buffers(pa.from_numpy_dtype(typed.dtype), len(typed), [NULL_FIRST, pa.py_buffer(typed)])
            indices = pa.Array.from_buffers(pa.uint16(), rows, [None, pa.py_buffer(code_N)])
            arrays[f"{kind}:{name}"] = pa.DictionaryArray.from_arrays(indices, dictionary, safe=False)
        return pa.RecordBatch.from_pydict(arrays)


def _reject(line: int, raw: bytes, layout: Layout, terminated: bool, too_long: bool) -> Reject:
    why = diagnose(raw, layout, terminated=terminated, too_long=too_long)
    if why is None:
        raise AssertionError(f"the parser refused a line that is well-formed: {raw!r}")
    return Reject(line, *why, raw.removesuffix(b"\r"))
