"""Converts between Arrow arrays of strings and spans of a buffer.

Shapes: N strings.
"""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dmoe.data.prepare.tokens.byte_words import load
from dmoe.data.prepare.tokens.texts import NOTHING, Texts
from dmoe.processes.compiled import compiled

Places = NDArray[np.signedinteger[Any]]
"""Positions: int32 in a text, int64 in an Arrow array."""


def buffers(column: pa.Array) -> Texts:
    """The bytes and the offsets [N + 1] of a large_binary or large_string array without nulls; for nulls see `spans`."""
    if not len(column):
        return NOTHING
    _, offsets, data = column.buffers()
    edges = np.frombuffer(offsets, np.int64)[column.offset : column.offset + len(column) + 1]
    return Texts(np.frombuffer(data, np.uint8) if data and data.size else NOTHING.data, edges)


def spans(column: pa.Array) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
    """(bytes, first [N], end [N]) of a large_string array. For a null, first equals end."""
    text, edges = buffers(column)
    end = edges[1:]
    if column.null_count:
        end = np.where(column.is_valid().to_numpy(zero_copy_only=False), end, edges[:-1])
    return text, edges[:-1], end


@compiled
def _gather(text: NDArray[np.uint8], first: Places, offsets: NDArray[np.int64], out: NDArray[np.uint8]) -> None:
    """Copies span i to offsets[i] .. offsets[i + 1] - 1, eight bytes at a time where both buffers have so many. The next span is copied
    over the bytes after its end."""
    for i in range(len(first)):
        at, to = np.int64(first[i]), offsets[i]
        while to < offsets[i + 1]:
            if at + 8 <= len(text) and to + 8 <= len(out):
                word = load(text, at)
                for place in range(8):
                    out[to + place] = np.uint8((word >> np.uint64(8 * place)) & np.uint64(0xFF))
                at += 8
                to += 8
            else:
                out[to] = text[at]
                at += 1
                to += 1


def strings(text: NDArray[np.uint8], first: Places, end: Places) -> pa.Array:
    """Copies the spans into a large_string array."""
    offsets = np.zeros(len(first) + 1, np.int64)
    np.cumsum(end - first, out=offsets[1:])
    data = np.empty(offsets[-1], np.uint8)
    _gather(text, first, offsets, data)
    return pa.Array.from_buffers(pa.large_string(), len(first), [None, pa.py_buffer(offsets), pa.py_buffer(data)])
