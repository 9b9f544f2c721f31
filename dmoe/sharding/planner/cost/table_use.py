"""Lookup statistics of tables, measured from the counts of the data set; they predict the misses of a cache on the device.

TorchRec's estimators use them in one place: with CacheParams.stats they add the time to fetch the rows that miss the cache of the kernel
`fused_uvm_caching`. They do not model duplicate ids in a batch (bytes sent are counted as if all ids differed), hot rows, or the effect of
the hit rate on lookup bandwidth (they use the cache's share of the rows). These statistics are reported, but do not affect the prediction.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from dmoe.data.dataset.describe import kept_counts
from dmoe.data.dataset.manifest import CategoricalFeature, Manifest
from dmoe.sharding.planner.cost.lookup import LOAD_FACTOR, Use
from dmoe.sharding.planner.planning_model import Described

Groups = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Distinct probabilities that a lookup is of a given id, and the number of ids with each probability."""
Counted = tuple[CategoricalFeature, Groups]


def groups_in(folder: str, manifest: Manifest) -> dict[str, Counted]:
    """Each feature that has a vocabulary in the data set, with its ids grouped by lookup probability.

    Args:
        folder: folder of the data set; empty if there is none.

    Raises:
        UserError: a vocabulary is damaged, or belongs to another data set.
    """
    if not folder:
        return {}
    counted = zip(manifest.categorical, kept_counts(folder, manifest), strict=True)
    return {feature.name: (feature, groups_of(counts, feature)) for feature, counts in counted if counts is not None and counts.sum() > 0}


def uses_of(groups: Mapping[str, Counted], batch_size: int) -> dict[str, Use]:
    """The lookup statistics of each feature's table.

    Args:
        batch_size: rows of the global batch.
    """
    return {name: measure(one, feature.cardinality, batch_size * feature.mean_ids) for name, (feature, one) in groups.items()}


def with_use(model: Described) -> Described:
    """The model with lookup statistics of the features that have a vocabulary; unchanged without a data set."""
    return replace(model, uses=uses_of(groups_in(model.config.data.path, model.manifest), model.config.train.batch_size))


def groups_of(counts: NDArray[np.int64], feature: CategoricalFeature) -> Groups:
    """Groups ids with equal counts: a vocabulary of 100 million ids has about ten thousand distinct counts.

    Args:
        counts: counts of the ids of tokens. The shares of the missing id and the rare id are in the manifest.
    """
    own = max(1 - feature.missing_share - feature.rare_share, 0.0)
    values, ids = np.unique(counts, return_counts=True)
    p = np.concatenate([values * (own / counts.sum()), [feature.missing_share, feature.rare_share]])
    ids = np.concatenate([ids, [1, 1]]).astype(np.float64)
    return np.asarray(p[p > 0] / (p * ids).sum(), np.float64), np.asarray(ids[p > 0], np.float64)


def measure(groups: Groups, rows: int, lookups: float) -> Use:
    """
    Args:
        rows: rows of the table.
        lookups: lookups in a global batch, assumed to be independent.
    """
    p, ids = groups
    with np.errstate(divide="ignore"):
        absent = lookups * np.log1p(-np.minimum(p, 1.0))
    seen = -np.expm1(absent)
    unique = float((ids * seen).sum())
    order = np.argsort(-p)
    before = np.concatenate([[0.0], np.cumsum((p * ids)[order])])
    at = int(np.searchsorted(before, 0.5) - 1)
    hot = float(ids[order][:at].sum() + np.ceil(max(0.5 - before[at], 0.0) / p[order][at] - 1e-9))
    return Use(lookups, unique, _miss_rate(seen, ids, LOAD_FACTOR * rows), max(int(hot), 1))


def _miss_rate(seen: NDArray[np.float64], ids: NDArray[np.float64], size: float) -> float:
    """Expected share of the distinct ids of a batch that miss an LRU cache of `size` rows.

    Che's approximation (2002), with a batch as the unit of time: each id stays for the time T in which `size` distinct ids occur.
    """
    if ids.sum() <= size:
        return 0.0
    with np.errstate(divide="ignore"):
        gone = np.log1p(-np.minimum(seen, 1.0))
    low, high = 0.0, 1.0
    while (ids * -np.expm1(high * gone)).sum() < size:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if (ids * -np.expm1(middle * gone)).sum() < size else (low, middle)
    return float((ids * seen * np.exp(high * gone)).sum() / (ids * seen).sum())


def told(use: Mapping[str, float]) -> str:
    """Describes a table's lookup statistics in a plan, and the assumption made without data."""
    return (
        f"{use['lookups']:,.0f} lookups a batch of {use['unique_ids']:,.0f} different ids, half of them of {use['hot_rows']:,}"
        f" row{'s' * (use['hot_rows'] != 1)}; a cache of {LOAD_FACTOR:.0%} of the rows misses {use['miss_rate']:.1%} of these ids by the"
        f" data's counts, where {1 - LOAD_FACTOR:.0%} of lookups is assumed without data"
    )


def in_short(uses: Mapping[str, Use]) -> str:
    """One line on the cache misses of all measured tables, and the assumption made without data; empty if none was measured."""
    if not uses:
        return ""
    asked = sum(use.unique_ids for use in uses.values())
    missed = sum(use.unique_ids * use.miss_rate for use in uses.values())
    return (
        f"ids counted in the data ({len(uses)} feature{'s' * (len(uses) != 1)}): caches of {LOAD_FACTOR:.0%} of the rows miss"
        f" {missed / asked:.1%} of a batch's different ids, where {1 - LOAD_FACTOR:.0%} of lookups is assumed without data"
    )
