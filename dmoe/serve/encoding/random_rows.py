"""Random input rows of a scorer, for comparisons and timings."""

import numpy as np

from dmoe.data.dataset.reading.bags import Bags
from dmoe.serve.scorer import Scorer

MOST_IDS = 8
"""Largest number of ids in a row of a multi-valued feature."""


def draw(scorer: Scorer, rows: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, dict[str, Bags]]:
    """Draws dense [B, I] float32, ids [B, F] int64, and bags of up to MOST_IDS ids for the multi-valued features."""
    dense_BI = rng.normal(size=(rows, len(scorer.about.dense))).astype(np.float32)
    ids_BF = (rng.random((rows, len(scorer.cardinality_F))) * scorer.cardinality_F).astype(np.int64)
    bags = {}
    for feature in scorer.about.features:
        if feature.pooling != "none":
            offsets = np.concatenate([[0], np.cumsum(rng.integers(1, MOST_IDS + 1, rows))])
            bags[feature.name] = Bags(rng.integers(0, feature.cardinality, offsets[-1]).astype(np.int32), offsets)
    return dense_BI, ids_BF, bags
