"""Several texts in one buffer, as compiled code takes them: the texts that mean "no value", or the names of columns."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dmoe.data.prepare.tokens.byte_words import same_bytes
from dmoe.processes.compiled import compiled


class Texts(NamedTuple):
    """Text i is data[edges[i] : edges[i + 1]]."""

    data: NDArray[np.uint8]
    edges: NDArray[np.int64]


def texts_of(texts: Iterable[str]) -> Texts:
    encoded = [text.encode() for text in texts]
    return Texts(np.frombuffer(b"".join(encoded), np.uint8), np.cumsum([0, *map(len, encoded)]))


NOTHING = texts_of([])


@compiled
def place_among(text: NDArray[np.uint8], first: int, size: int, data: NDArray[np.uint8], edges: NDArray[np.int64]) -> int:
    """The index of the text of a `Texts` with the given bytes; -1 if there is none."""
    for i in range(len(edges) - 1):
        if edges[i + 1] - edges[i] == size and same_bytes(text, first, data, edges[i], size):
            return i
    return -1


@compiled
def is_missing(text: NDArray[np.uint8], first: int, end: int, data: NDArray[np.uint8], edges: NDArray[np.int64]) -> bool:
    """Whether a value is empty, or one of the texts that mean "no value"."""
    # Not by `place_among`: a call within this function would not be inlined, and `numbers` took 1.7 times as long.
    size = end - first
    if size == 0:
        return True
    for i in range(len(edges) - 1):  # noqa: SIM110 (numba has no any)
        if edges[i + 1] - edges[i] == size and same_bytes(text, first, data, edges[i], size):
            return True
    return False
