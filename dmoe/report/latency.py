"""What calls of a scorer took: dmoe.report.latency_probe measures it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

BATCHES = (1, 32, 256, 4096)
"""Rows of a call."""
FASTEST = 0.0
"""The quantile that tells what the work takes, where the machine does other things meanwhile."""


@dataclass(frozen=True)
class Latency:
    """Of a scorer: bytes of its numbers, and the seconds of every call by the rows of a call."""

    size: int
    calls: dict[int, list[float]]

    def milliseconds(self, rows: int, share: float = 0.5) -> float:
        """A quantile of the calls with so many rows; the median by default."""
        return float(np.quantile(self.calls[rows], share)) * 1e3

    def rows_a_second(self, share: float = 0.5) -> float:
        """At the largest call."""
        rows = max(self.calls)
        return 1e3 * rows / self.milliseconds(rows, share)


def together(members: Sequence[Latency]) -> Latency:
    """An ensemble's: its members one after another, call by call in the order of their speed."""
    sizes = set.intersection(*(set(one.calls) for one in members))
    calls = {rows: [sum(turn) for turn in zip(*(sorted(one.calls[rows]) for one in members), strict=False)] for rows in sizes}
    return Latency(sum(one.size for one in members), calls)
