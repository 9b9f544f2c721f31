"""Features whose values a model does not know, or does not get, far more often than in its training data: skew between the two."""

import math
from collections.abc import Mapping

from dmoe.data.dataset.manifest import Manifest

Shares = Mapping[str, tuple[float, float]]
"""Feature -> (share of its values that are rare, which a model takes for unknown; share that is missing)."""

LEAST_DIFFERENCE = 0.1
"""Days differ: a share that grew by less than this is not reported."""
LEAST_FACTOR = 2
"""By which the share grew, or what is left beside it shrank."""
STANDARD_ERRORS = 5
"""Of a share of so many values, which must not explain the difference: a handful of rows proves nothing."""


def shares_of(manifest: Manifest) -> dict[str, tuple[float, float]]:
    """The shares of every feature over all splits. Hashed ids know no rare value."""
    shares = {feature.name: (0.0, feature.missing_share) for feature in manifest.dense}
    return shares | {feature.name: (feature.rare_share, feature.missing_share) for feature in manifest.categorical}


def far_above(share: float, trained: float, values: float) -> bool:
    """Whether a share of `values` values is above the training data's by more than days differ and more than chance explains."""
    difference, middle = share - trained, (share + trained) / 2
    grew = share >= LEAST_FACTOR * trained or (1 - share) * LEAST_FACTOR <= 1 - trained
    error = math.sqrt(middle * (1 - middle) / values) if values else math.inf
    return grew and difference >= LEAST_DIFFERENCE and difference > STANDARD_ERRORS * error


def skew_lines(trained: Shares, manifest: Manifest, where: str) -> list[str]:
    """A line for each feature of a data set that has far more unknown or missing values than the training data.

    Args:
        trained: the training data's shares, of the features that matter.
        where: names the data set in the lines.
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
                f" compare how they are written with the training data's vocabulary/{name}.parquet"
            )
        if far_above(missing, trained_missing, values):
            found.append(f"{missing:.1%} of its values are missing ({trained_missing:.1%} in the training data): check the column")
        if found:
            lines.append(f"{where}: {name}: {'; '.join(found)}")
    return lines
