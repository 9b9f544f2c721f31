"""Latency and throughput of scorers. The scorers are called in turn, so that other load on the machine affects all of them.

Shapes: B rows of a call, F categorical features, I numeric features.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from dmoe.serve.scorer import Scorer

WARM_UP = 3
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


def measure(scorers: "Mapping[str, Scorer]", rounds: int, threads: int = 1, batches: Sequence[int] = BATCHES) -> dict[str, Latency]:
    """Calls each scorer `rounds` times with each number of rows. Ids are random, so caches help less than with the ids of a log."""
    import torch

    from dmoe.serve.encoding.random_rows import draw

    rng, before = np.random.default_rng(0), torch.get_num_threads()
    calls: dict[str, dict[int, list[float]]] = {name: {rows: [] for rows in batches} for name in scorers}
    torch.set_num_threads(threads)
    try:
        for turn in range(WARM_UP + rounds):
            for rows in batches:
                for name, scorer in scorers.items():
                    dense_BI, ids_BF, bags = draw(scorer, rows, rng)
                    began = time.perf_counter()
                    scorer.logits(dense_BI, ids_BF, bags)
                    if turn >= WARM_UP:
                        calls[name][rows].append(time.perf_counter() - began)
    finally:
        torch.set_num_threads(before)
    return {name: Latency(bytes_of(scorer), calls[name]) for name, scorer in scorers.items()}


def bytes_of(scorer: "Scorer") -> int:
    """Size of the embedding rows, their scales and the dense parameters."""
    return int(scorer.rows.nbytes + sum(parameter.nbytes for parameter in scorer.mixture.parameters()))
