"""Skew between training data and other data: features whose values are unknown or missing far more often than in training."""

import math
from collections.abc import Mapping

from dmoe.data.dataset.manifest import Manifest
from dmoe.names import file_name

Shares = Mapping[str, tuple[float, float]]
"""Feature -> (share of its values that are rare, i.e. unknown to the model; share that is missing)."""

LEAST_DIFFERENCE = 0.1
"""Shares differ between days. A smaller increase is not reported."""
LEAST_FACTOR = 2
"""A reported share has grown by this factor, or the share of other values has shrunk by it."""
STANDARD_ERRORS = 5
"""A reported difference is larger than so many standard errors, since a few rows prove nothing."""


def shares_of(manifest: Manifest) -> dict[str, tuple[float, float]]:
    """The shares of every feature over all splits. With hashed ids, no value is rare."""
    shares = {feature.name: (0.0, feature.missing_share) for feature in manifest.dense}
    return shares | {feature.name: (feature.rare_share, feature.missing_share) for feature in manifest.categorical}


def far_above(share: float, trained: float, values: float) -> bool:
    """Whether a share of `values` values is above that of the training data by more than days differ and chance explains."""
    difference, middle = share - trained, (share + trained) / 2
    grew = share >= LEAST_FACTOR * trained or (1 - share) * LEAST_FACTOR <= 1 - trained
    error = math.sqrt(middle * (1 - middle) / values) if values else math.inf
    return grew and difference >= LEAST_DIFFERENCE and difference > STANDARD_ERRORS * error


def skew_lines(trained: Shares, manifest: Manifest, where: str) -> list[str]:
    """One line for each feature that has far more unknown or missing values than in the training data.

    Args:
        trained: shares of the training data, for the features to compare.
        where: how the lines name the data set.
    """
    rows = sum(split.rows for split in manifest.splits.values())
    ids = {feature.name: feature.mean_ids for feature in manifest.categorical}
    lines = []
    for name, (rare, missing) in shares_of(manifest).items():
        if name not in trained:
            continue
        trained_rare, trained_missing = trained[name]
        values, found = rows * ids.get(name, 1.0), []
        if far_above(rare, trained_rare, values):
            found.append(
                f"{rare:.1%} of its values are unknown ({trained_rare:.1%} in the training data):"
                f" compare how they are written with the training data's vocabulary/{file_name(name)}.parquet"
            )
        if far_above(missing, trained_missing, values):
            found.append(f"{missing:.1%} of its values are missing ({trained_missing:.1%} in the training data): check the column")
        if found:
            lines.append(f"{where}: {name}: {'; '.join(found)}")
    return lines
