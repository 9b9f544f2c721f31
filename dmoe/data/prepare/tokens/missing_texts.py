"""The texts that mean "no value"."""

import numpy as np
from numpy.typing import NDArray

from dmoe.data.prepare.tokens.byte_words import same_bytes
from dmoe.processes.compiled import compiled


class Missing:
    """The texts that mean "no value", in addition to the empty text. Text i is text[edges[i] : edges[i + 1]]."""

    def __init__(self, texts: list[bytes]) -> None:
        self.text = np.frombuffer(b"".join(texts), np.uint8)
        self.edges = np.cumsum([0, *map(len, texts)])


NOTHING = Missing([])


@compiled
def is_missing(text: NDArray[np.uint8], first: int, end: int, none: NDArray[np.uint8], edges: NDArray[np.int64]) -> bool:
    size = end - first
    if size == 0:
        return True
    for m in range(len(edges) - 1):  # noqa: SIM110 (numba has no any)
        if edges[m + 1] - edges[m] == size and same_bytes(text, first, none, edges[m], size):
            return True
    return False
