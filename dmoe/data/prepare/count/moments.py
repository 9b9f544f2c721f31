"""Mean and standard deviation of a numeric column, accumulated block by block, without overflow for any finite numbers.

Shapes: N numbers of a block.
"""

import numpy as np
from numpy.typing import NDArray

ROUNDING = 64 * np.finfo(np.float64).eps
"""If the numbers of a column differ by at most this share of the largest, the column counts as constant: the difference is rounding."""
LARGEST, SMALLEST = float(np.finfo(np.float64).max), float(np.finfo(np.float64).tiny)
"""Limits of float64. A deviation below the smallest normal number has lost its digits."""
MANY, NEARLY_ALL = 100, 0.9
"""With at least MANY numbers, a single one that makes the share NEARLY_ALL of the sum of squares is reported."""
SAFE_EXPONENT = 400
"""Numbers between 2^-400 and 2^400 are squared and added as they are. Others are first scaled by a power of two, which is exact."""


class Moments:
    """Running count, mean and sum of squared deviations (Chan, Golub, LeVeque 1979).

    The state has the unit 2^exponent, which follows the largest number, so that no square overflows or vanishes.
    """

    def __init__(self) -> None:
        self.count, self.mean, self.scatter = 0.0, 0.0, 0.0
        self.lowest, self.highest = np.inf, -np.inf
        self.exponent = 0

    def add(self, value_N: NDArray[np.float64]) -> None:
        """Adds a block of finite numbers. The last bits of the result depend on the blocks, so always cut a column into the same blocks."""
        if not len(value_N):
            return
        self.lowest, self.highest = min(self.lowest, float(value_N.min())), max(self.highest, float(value_N.max()))
        self._rescale(_exponent(max(abs(self.lowest), abs(self.highest))))
        if self.exponent:
            value_N = np.ldexp(value_N, -self.exponent)
        count, mean = len(value_N), value_N.mean()
        step, seen = mean - self.mean, self.count
        self.scatter = self.scatter + ((value_N - mean) ** 2).sum() + step**2 * seen * count / (seen + count)
        self.mean += step * count / (seen + count)
        self.count = seen + count

    def result(self) -> tuple[float, float]:
        """(mean, deviation). The deviation of a column that is constant, up to rounding, is 1. A column without numbers gives (0, 1)."""
        if not self.count:
            return 0.0, 1.0
        # Halved, since the difference itself could overflow.
        if self.highest / 2 - self.lowest / 2 <= ROUNDING * max(abs(self.lowest), abs(self.highest)) / 2:
            return self.lowest, 1.0
        deviation = float(np.ldexp(np.sqrt(self.scatter / self.count), self.exponent))
        return float(np.ldexp(self.mean, self.exponent)), deviation if deviation >= SMALLEST else 1.0

    def lone_number(self) -> float | None:
        """A single number that makes nearly all of the variance, so that the others hardly differ once standardised; None if none does."""
        if self.count < MANY or not self.scatter:
            return None
        from_mean = [(np.ldexp(one, -self.exponent) - self.mean) ** 2 for one in (self.lowest, self.highest)]
        share = max(from_mean) / self.scatter
        return (self.lowest, self.highest)[from_mean.index(max(from_mean))] if share >= NEARLY_ALL else None

    def _rescale(self, exponent: int) -> None:
        by = self.exponent - exponent
        if by:
            self.mean, self.scatter = float(np.ldexp(self.mean, by)), float(np.ldexp(self.scatter, 2 * by))
        self.exponent = exponent


def _exponent(largest: float) -> int:
    exponent = int(np.frexp(largest)[1])
    return exponent if abs(exponent) > SAFE_EXPONENT else 0


def are_moments(pair: object) -> bool:
    """Whether a value from a file is a (mean, deviation) that can standardise numbers."""
    if not isinstance(pair, list | tuple) or len(pair) != 2:
        return False
    return all(type(one) in (int, float) and -LARGEST <= one <= LARGEST for one in pair) and pair[1] >= SMALLEST
