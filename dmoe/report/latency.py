"""Durations of calls to a scorer. `dmoe.report.latency_probe` measures them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

BATCHES = (1, 32, 256, 4096)
"""Numbers of rows per call."""
FASTEST = 0.0
"""The quantile to use if other programs run on the machine: the fastest call is disturbed least."""


@dataclass(frozen=True)
class Latency:
    """Latency of a scorer: the size of its parameters in bytes, and the seconds of each call by the number of rows per call."""

    size: int
    calls: dict[int, list[float]]

    def milliseconds(self, rows: int, share: float = 0.5) -> float:
        """A quantile of the durations of calls with `rows` rows; by default the median."""
        return float(np.quantile(self.calls[rows], share)) * 1e3

    def rows_a_second(self, share: float = 0.5) -> float:
        """Throughput with the largest number of rows per call."""
        rows = max(self.calls)
        return 1e3 * rows / self.milliseconds(rows, share)


def together(members: Sequence[Latency]) -> Latency:
    """The latency of an ensemble whose members run one after another. The n-th fastest calls of all members are added, for each n."""
    sizes = set.intersection(*(set(one.calls) for one in members))
    calls = {rows: [sum(turn) for turn in zip(*(sorted(one.calls[rows]) for one in members), strict=False)] for rows in sizes}
    return Latency(sum(one.size for one in members), calls)
