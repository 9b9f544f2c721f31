"""How a table's ids are used, measured from the data set's counts: what a cache on the device is predicted by.

TorchRec's estimators have one place for it: CacheParams.stats, from which they add the time to fetch rows that a cache of the kernel
`fused_uvm_caching` misses. They have none for the ids of a batch that are equal (what is sent is counted as if all differed), nor for hot
rows, nor for the hit rate in the bandwidth of a lookup, where the cache's share of the rows stands for it. These are told, not predicted.
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
"""Probability that a lookup is of an id, and how many ids have it."""
Counted = tuple[CategoricalFeature, Groups]


def groups_in(folder: str, manifest: Manifest) -> dict[str, Counted]:
    """Every feature whose vocabulary the data set keeps, with its ids by how often they are looked up.

    Args:
        folder: of the data set; none where empty.

    Raises:
        UserError: a vocabulary is damaged, or another data set's.
    """
    if not folder:
        return {}
    counted = zip(manifest.categorical, kept_counts(folder, manifest), strict=True)
    return {feature.name: (feature, groups_of(counts, feature)) for feature, counts in counted if counts is not None and counts.sum() > 0}


def uses_of(groups: Mapping[str, Counted], batch_size: int) -> dict[str, Use]:
    """The use of each feature's table at a global batch of so many rows."""
    return {name: measure(one, feature.cardinality, batch_size * feature.mean_ids) for name, (feature, one) in groups.items()}


def with_use(model: Described) -> Described:
    """The model with the use of each feature whose vocabulary the data set keeps; as it is where it has no data set."""
    return replace(model, uses=uses_of(groups_in(model.config.data.path, model.manifest), model.config.train.batch_size))


def groups_of(counts: NDArray[np.int64], feature: CategoricalFeature) -> Groups:
    """Ids that are looked up equally often, together: a vocabulary of 100 million ids has some ten thousand different counts.

    Args:
        counts: of the feature's own ids; the ids of missing and of rare values have their shares in the manifest.
    """
    own = max(1 - feature.missing_share - feature.rare_share, 0.0)
    values, ids = np.unique(counts, return_counts=True)
    p = np.concatenate([values * (own / counts.sum()), [feature.missing_share, feature.rare_share]])
    ids = np.concatenate([ids, [1, 1]]).astype(np.float64)
    return np.asarray(p[p > 0] / (p * ids).sum(), np.float64), np.asarray(ids[p > 0], np.float64)


def measure(groups: Groups, rows: int, lookups: float) -> Use:
    """
    Args:
        rows: of the table.
        lookups: of a global batch, each independent of the others.
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
    """Share of a batch's different ids that a cache of `size` rows, of which the least recently used go first, does not hold.

    Che's approximation (2002), with a batch as the unit of time: an id stays for the same time T, by which `size` different ids came.
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
    """A plan's kept use in words, beside what is assumed without data."""
    return (
        f"{use['lookups']:,.0f} lookups a batch of {use['unique_ids']:,.0f} different ids, half of them of {use['hot_rows']:,}"
        f" row{'s' * (use['hot_rows'] != 1)}; a cache of {LOAD_FACTOR:.0%} of the rows misses {use['miss_rate']:.1%} of these ids by the"
        f" data's counts, where {1 - LOAD_FACTOR:.0%} of lookups is assumed without data"
    )


def in_short(uses: Mapping[str, Use]) -> str:
    """Of all tables that were measured, what caches miss beside what is assumed without data; empty where none was."""
    if not uses:
        return ""
    asked = sum(use.unique_ids for use in uses.values())
    missed = sum(use.unique_ids * use.miss_rate for use in uses.values())
    return (
        f"ids counted in the data ({len(uses)} feature{'s' * (len(uses) != 1)}): caches of {LOAD_FACTOR:.0%} of the rows miss"
        f" {missed / asked:.1%} of a batch's different ids, where {1 - LOAD_FACTOR:.0%} of lookups is assumed without data"
    )
