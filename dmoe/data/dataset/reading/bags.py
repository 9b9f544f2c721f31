"""A multi-valued column in memory: the ids of all rows, one row after another, and the offset of each row.

Shapes: N rows, V ids of all rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Bags:
    """Row n has the ids values[offsets[n] : offsets[n + 1]]. values is [V] int32; offsets is [N + 1] int64 and begins with 0."""

    values: NDArray[np.int32]
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.diff(self.offsets)

    def __getitem__(self, rows: "slice | NDArray[np.int64]") -> "Bags":
        """The bags of some rows, in the given order."""
        if isinstance(rows, slice):
            start, stop, _ = rows.indices(len(self))
            offsets = self.offsets[start : max(stop, start) + 1]
            return Bags(self.values[offsets[0] : offsets[-1]], offsets - offsets[0])
        lengths = self.lengths[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        # For each id: its position in its bag, plus the old offset of the bag.
        place = np.arange(offsets[-1]) + np.repeat(self.offsets[:-1][rows] - offsets[:-1], lengths)
        return Bags(self.values[place], offsets)


def empty() -> Bags:
    return Bags(np.empty(0, np.int32), np.zeros(1, np.int64))


def concatenate(parts: Sequence[Bags]) -> Bags:
    """The rows of all parts, in order."""
    lengths = np.concatenate([part.lengths for part in parts])
    return Bags(np.concatenate([part.values for part in parts]), np.concatenate([[0], np.cumsum(lengths)]))
