"""Latency and throughput of scorers, which take turns, so that whatever else the machine does meets all of them.

Shapes: B rows of a call, F categorical features, I numeric features.
"""

import time
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from dmoe.data.dataset.bags import Bags
from dmoe.report.latency import BATCHES, Latency
from dmoe.serve.scorer import Scorer

WARM_UP = 3
MOST_IDS = 8
"""Of a row's bag, where a feature is multi-valued."""


def measure(scorers: Mapping[str, Scorer], rounds: int, threads: int = 1, batches: Sequence[int] = BATCHES) -> dict[str, Latency]:
    """Calls each scorer `rounds` times with every number of rows, on random ids, which is harder on the caches than a log's."""
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


def draw(scorer: Scorer, rows: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, dict[str, Bags]]:
    """Random rows that the scorer takes: dense [B, I], ids [B, F], and bags of up to MOST_IDS ids."""
    dense_BI = rng.normal(size=(rows, len(scorer.about.dense))).astype(np.float32)
    ids_BF = (rng.random((rows, len(scorer.cardinality_F))) * scorer.cardinality_F).astype(np.int64)
    bags = {}
    for feature in scorer.about.features:
        if feature.pooling != "none":
            offsets = np.concatenate([[0], np.cumsum(rng.integers(1, MOST_IDS + 1, rows))])
            bags[feature.name] = Bags(rng.integers(0, feature.cardinality, offsets[-1]).astype(np.int32), offsets)
    return dense_BI, ids_BF, bags


def bytes_of(scorer: Scorer) -> int:
    """Of the rows, their scales and the dense parameters."""
    return int(scorer.rows.nbytes + sum(parameter.nbytes for parameter in scorer.mixture.parameters()))
