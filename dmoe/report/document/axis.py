"""The axis of a chart: converts values to pixels, and selects the values that get labels."""

import math


class Axis:
    """Maps values from `low` to `high` to pixels from `start` to `end`. An empty range is widened.

    Example:
        >>> [name for _, name in Axis(0, 25_000, False, 0, 100).ticks()]
        ['0', '5k', '10k', '15k', '20k', '25k']
    """

    def __init__(self, low: float, high: float, log: bool, start: float, end: float) -> None:
        if not high > low:
            low, high = (low / 2, high * 2) if log else (low - (abs(low) * 0.05 or 1.0), high + (abs(high) * 0.05 or 1.0))
        self.low, self.high, self.log, self.start, self.end = low, high, log, start, end

    def at(self, value: float) -> float:
        """The pixel of a value."""
        if self.log:
            share = (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[tuple[float, str]]:
        """Round values and their labels."""
        found = self._powers() if self.log else []
        if len(found) >= 2:
            return [(value, short(value)) for value in found]
        step = 10.0 ** math.floor(math.log10((self.high - self.low) / 5))
        step *= next(one for one in (1, 2, 5, 10) if (self.high - self.low) / (step * one) <= 5.0001)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        values = [number * step for number in range(first, min(last, first + 20) + 1)]
        largest = max((abs(value) for value in values), default=0.0)
        digits = max(-math.floor(math.log10(step)), 0)
        return [(one, short(one, step) if largest >= 10_000 or digits > 6 else f"{one + 0.0:.{digits}f}") for one in values]

    def _powers(self) -> list[float]:
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for factors, every in (((1, 2, 5), 1), ((1,), 1), ((1,), math.ceil(len(powers) / 7))):
            found = [one * 10.0**power for power in powers[::every] for one in factors]
            found = [value for value in found if self.low * 0.999 <= value <= self.high * 1.001]
            if len(found) <= 8:
                break
        return found


def short(value: float, step: float = 0.0) -> str:
    """Formats a number with few characters: 25k, 0.312, 3e-07. With `step`, values that are `step` apart get different texts."""
    if value == 0:
        return "0"
    digits = 3 if not step else min(max(math.ceil(math.log10(abs(value) / step) + 1), 3), 12)
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if size <= abs(value) < 1000 * size:
            return f"{value / size:.{digits}g}{letter}"
    return f"{value:.{digits}g}"
