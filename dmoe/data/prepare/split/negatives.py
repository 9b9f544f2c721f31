"""Negative down-sampling: a share of the train split's rows of label 0, whose weights undo it.

Shapes: N rows of a batch.
"""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from dmoe.data.prepare.split.split_rules import row_hashes

STREAM = int.from_bytes(b"negative", "little")
"""By which the seed differs from the split's: whether a row is kept does not depend on the split that it would be in."""


@dataclass(frozen=True)
class Negatives:
    """Which negatives are kept, `share` (0 .. 1) of them, by a hash of the seed and the row's number in the log.

    A kept one weighs 1 / share, so that weighted sums over the rows, such as the loss, have the whole log's as their expectation.

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
        """The weights of kept rows that had these in the log."""
        return np.where(label_N > 0, weight_N, weight_N / self.share).astype(np.float32)
