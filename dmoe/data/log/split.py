"""Which split the rows of a part go to: by the random or positional rule of dmoe.data.split, or by the time column.

Shapes: N rows of a part.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from dmoe.data.log.encode import TIME
from dmoe.data.log.parts import Part, read_columns
from dmoe.data.split import Splitter
from dmoe.errors import UserError

DIGIT_BITS = 16


class PartSplitter:
    """Splits by row number, or at two times: all rows of one time lie in one split, the shares met as nearly as that allows.

    Args:
        by_column: take `splitter`'s shares of the rows in the order of their times, wherever they stand in the log.
    """

    def __init__(self, splitter: Splitter, parts: list[Part], by_column: bool) -> None:
        self.splitter, self.parts = splitter, parts
        self.firsts = np.cumsum([0] + [part.rows for part in parts])
        self.total = int(self.firsts[-1])
        self.cuts: list[np.uint64] | None = None
        if by_column:
            edges = (splitter.shares[0], splitter.shares[0] + splitter.shares[1])
            self.cuts = [self._time_of(int(edge * self.total)) for edge in edges]
            if self._time_of(0) >= self.cuts[0]:
                raise UserError("--split-by time: the rows of the first time are more than the train split's share; split by random")

    def assign(self, number: int) -> NDArray[np.uint8]:
        """The split of each row of a part, [N] uint8 (dmoe.data.split.NAMES)."""
        part = self.parts[number]
        if self.cuts is None:
            return self.splitter.assign(int(self.firsts[number]), part.rows, self.total)
        key_N = _ordered(read_columns(part, [TIME]).column(TIME).to_numpy())
        return (key_N >= self.cuts[0]).astype(np.uint8) + (key_N >= self.cuts[1])

    def _time_of(self, rank: int) -> np.uint64:
        """The time of the row at that place in the order of times, exact, by four passes over the time column and 2^16 counters."""
        if rank >= self.total:
            return np.uint64(2**64 - 1)
        prefix, left = 0, rank
        for digit in reversed(range(64 // DIGIT_BITS)):
            counts = np.zeros(1 << DIGIT_BITS, np.int64)
            low = np.uint64(digit * DIGIT_BITS)
            for key_N in self._keys():
                if digit < 64 // DIGIT_BITS - 1:
                    key_N = key_N[key_N >> np.uint64((digit + 1) * DIGIT_BITS) == np.uint64(prefix)]
                counts += np.bincount(((key_N >> low) & np.uint64(0xFFFF)).astype(np.int64), minlength=1 << DIGIT_BITS)
            value = int(np.searchsorted(np.cumsum(counts), left, side="right"))
            left -= int(counts[:value].sum())
            prefix = (prefix << DIGIT_BITS) | value
        return np.uint64(prefix)

    def _keys(self) -> Iterator[NDArray[np.uint64]]:
        for part in self.parts:
            yield _ordered(read_columns(part, [TIME]).column(TIME).to_numpy())


def _ordered(time_N: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Unsigned integers in the order of finite floats: the sign bit flipped, all bits where it is set (Herf 2001)."""
    bits = (time_N + 0.0).view(np.uint64)
    return np.where(bits >> np.uint64(63) == 1, ~bits, bits | np.uint64(1 << 63))
