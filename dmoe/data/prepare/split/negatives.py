"""Negative down-sampling: the train split keeps a share of its rows with label 0, and their weights correct for it.

Shapes: N rows of a batch.
"""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from dmoe.data.prepare.split.split_rules import row_hashes

STREAM = int.from_bytes(b"negative", "little")
"""Changes the seed, so that the sampling does not depend on the split, which uses the same hash."""


@dataclass(frozen=True)
class Negatives:
    """Keeps the share `share` (0 .. 1) of the negatives, by a hash of the seed and the row's number in the log.

    A kept negative has the weight 1 / share. The expectation of a weighted sum over the kept rows, such as the loss, is therefore the sum
    over the whole log.

    Examples:
        >>> Negatives(0.5, seed=0).weights(np.array([1, 0]), np.array([1, 3], np.float32))
        array([1., 6.], dtype=float32)
    """

    share: float
    seed: int

    def kept(self, label_N: NDArray[np.uint8], first: int) -> NDArray[np.bool_]:
        """Whether each of the rows first, first + 1, ... is kept: its label is 1, or row_hashes(seed xor STREAM) / 2^64 below the share."""
        limit = int(Fraction(self.share) * 2**64)
        hash_N = row_hashes((self.seed % 2**64) ^ STREAM, first, len(label_N))
        return (label_N > 0) | (hash_N < np.uint64(min(limit, 2**64 - 1)))

    def weights(self, label_N: NDArray[np.uint8], weight_N: NDArray[np.float32]) -> NDArray[np.float32]:
        """The weights of kept rows, from their weights in the log."""
        return np.where(label_N > 0, weight_N, weight_N / self.share).astype(np.float32)
