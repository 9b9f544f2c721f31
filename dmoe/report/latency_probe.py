"""Measures latency and throughput of scorers. The scorers are called in turn, so that other load on the machine affects all of them.

Shapes: B rows of a call, F categorical features, I numeric features.
"""

import time
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from dmoe.report.latency import BATCHES, Latency
from dmoe.serve.encoding.random_rows import draw
from dmoe.serve.scorer import Scorer

WARM_UP = 3


def measure(scorers: Mapping[str, Scorer], rounds: int, threads: int = 1, batches: Sequence[int] = BATCHES) -> dict[str, Latency]:
    """Calls each scorer `rounds` times with each number of rows. Ids are random, so caches help less than with the ids of a log."""
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


def bytes_of(scorer: Scorer) -> int:
    """Size of the embedding rows, their scales and the dense parameters."""
    return int(scorer.rows.nbytes + sum(parameter.nbytes for parameter in scorer.mixture.parameters()))
