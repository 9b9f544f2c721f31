"""Byte strings as spans of a buffer: the buffers of an Arrow array, and an Arrow array of spans.

Shapes: N strings.
"""

from typing import Any

import numpy as np
import pyarrow as pa
from numba import njit
from numpy.typing import NDArray

Places = NDArray[np.signedinteger[Any]]
"""Of 32 bits in a text, of 64 in an Arrow array."""


def buffers(column: pa.Array) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The bytes of a large_binary or large_string array, and its offsets [N + 1]; of an array with nulls see `spans`."""
    if not len(column):
        return np.zeros(0, np.uint8), np.zeros(1, np.int64)
    _, offsets, data = column.buffers()
    edges = np.frombuffer(offsets, np.int64)[column.offset : column.offset + len(column) + 1]
    return np.frombuffer(data, np.uint8) if data and data.size else np.zeros(0, np.uint8), edges


def spans(column: pa.Array) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
    """(bytes, first [N], end [N]) of a large_string array; of a null, first is end."""
    text, edges = buffers(column)
    end = edges[1:]
    if column.null_count:
        end = np.where(column.is_valid().to_numpy(zero_copy_only=False), end, edges[:-1])
    return text, edges[:-1], end


@njit(nogil=True, cache=True)
def _gather(text: NDArray[np.uint8], first: Places, offsets: NDArray[np.int64], out: NDArray[np.uint8]) -> None:
    for i in range(len(first)):
        at = first[i]
        for to in range(offsets[i], offsets[i + 1]):
            out[to] = text[at]
            at += 1


def strings(text: NDArray[np.uint8], first: Places, end: Places) -> pa.Array:
    """The spans as large_string, copied."""
    offsets = np.zeros(len(first) + 1, np.int64)
    np.cumsum(end - first, out=offsets[1:])
    data = np.empty(offsets[-1], np.uint8)
    _gather(text, first, offsets, data)
    return pa.Array.from_buffers(pa.large_string(), len(first), [None, pa.py_buffer(offsets), pa.py_buffer(data)])
