"""Describes a data set: rows and labels of each split and day, and for every feature its ids, their skew and their memory.

The facts come from the manifest and the vocabularies, so describing a terabyte takes seconds. If a data set has no vocabularies (hashed
ids), the skew is measured on a sample of the train split's row groups.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmoe.data.dataset.files import file_bytes, open_shard, read_row_group, row_groups
from dmoe.data.dataset.manifest import RARE_ID, CategoricalFeature, Manifest, load_manifest
from dmoe.data.dataset.notices import facts, notices
from dmoe.data.dataset.vocabulary_files import file_of, other_vocabulary, unreadable
from dmoe.storage.paths import PATHS, join

SAMPLE_ROWS = 1_000_000
FLOAT_BYTES = 4
OPTIMIZERS = {"sgd": "weights alone", "rowwise_adagrad": "+ one state a row", "adagrad": "+ a state a weight", "adam": "+ two"}
"""State that each table optimizer adds to the weights."""


@dataclass(frozen=True)
class SplitFacts:
    """Facts about a split. `rates` are the label rates of its shards in order. Shards follow the order of the log, so they show drift."""

    name: str
    rows: int
    positives: int
    shards: int
    row_groups: int
    bytes: int
    rates: list[float]
    labelled: bool

    @property
    def rate(self) -> float | None:
        return self.positives / self.rows if self.rows and self.labelled else None


@dataclass(frozen=True)
class FeatureFacts:
    """Facts about a categorical feature. All shares are of rows.

    Attributes:
        top: (k, share of the k most frequent ids); without the missing and the rare id.
        effective: exp(entropy) of the distribution of ids, with missing and rare as one id each: the number of equally frequent ids with
            the same entropy.
    """

    name: str
    kind: str
    cardinality: int
    missing: float
    rare: float
    top: list[tuple[int, float]] | None
    effective: float | None

    def share_of_top(self, k: int) -> float | None:
        """The share of rows of the k most frequent ids. k is a power of ten."""
        if self.top is None:
            return None
        return next((share for at, share in self.top if at >= k), self.top[-1][1] if self.top else 0.0)


@dataclass(frozen=True)
class Description:
    """Everything that `dmoe describe` prints.

    Attributes:
        dense: (name, transform, share of missing values).
        days: (name, rows, positives), if the data set knows its days.
        notes: facts about its preparation and warnings, one line each.
    """

    folder: str
    dataset: str
    splits: list[SplitFacts]
    dense: list[tuple[str, str, float]]
    features: list[FeatureFacts]
    days: list[tuple[str, int, int]]
    skew_from: str
    command: str
    notes: list[str]

    @property
    def ids(self) -> int:
        return sum(feature.cardinality for feature in self.features)

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "table_bytes": {str(dim): table_bytes(self.ids, dim) for dim in (8, 16, 32, 64, 128)}}


def table_bytes(rows: int, dim: int) -> dict[str, int]:
    """Bytes of float32 embedding tables with `rows` rows in total, with the state of each optimizer."""
    weights = rows * dim * FLOAT_BYTES
    return {"sgd": weights, "rowwise_adagrad": weights + rows * FLOAT_BYTES, "adagrad": 2 * weights, "adam": 3 * weights}


def describe(folder: str) -> Description:
    """Reads the manifest, the shards' footers, and the vocabularies or a sample.

    Raises:
        UserError: no data set there, or one of its files is missing.
    """
    manifest = load_manifest(folder)
    splits = [_split(folder, name, manifest) for name in manifest.splits]
    kept = all(PATHS.exists(file_of(folder, feature.name)) for feature in manifest.categorical)
    counts = kept_counts(folder, manifest) if kept else _sampled_counts(folder, manifest)
    features = [_feature(feature, of) for feature, of in zip(manifest.categorical, counts, strict=True)]
    return Description(
        folder=folder,
        dataset=manifest.dataset,
        splits=splits,
        dense=[(feature.name, feature.transform, feature.missing_share) for feature in manifest.dense],
        features=features,
        days=_days(manifest),
        skew_from="the vocabularies' counts" if kept else f"at most {SAMPLE_ROWS:,} rows of the train split",
        command=str(manifest.made_by.get("command", "")),
        notes=[*facts(manifest), *(f"warning: {one}" for one in notices(manifest))],
    )


def _split(folder: str, name: str, manifest: Manifest) -> SplitFacts:
    split = manifest.splits[name]
    groups = 0
    for shard in split.shards:
        with open_shard(folder, shard) as file:
            groups += file.metadata.num_row_groups
    size = sum(file_bytes(join(folder, shard.path)) for shard in split.shards)
    rates = [shard.positives / shard.rows for shard in split.shards] if split.labelled else []
    return SplitFacts(name, split.rows, split.positives, len(split.shards), groups, size, rates, split.labelled)


def _days(manifest: Manifest) -> list[tuple[str, int, int]]:
    days = manifest.made_by.get("days")
    if not isinstance(days, list):
        return []
    return [(str(day["name"]), int(day["rows"]), int(day["positives"])) for day in days if isinstance(day, dict)]


def kept_counts(folder: str, manifest: Manifest) -> Iterator[NDArray[np.int64] | None]:
    """Yields for every categorical feature the count of each id from 2 on; None if the data set has no vocabulary of the feature.

    Raises:
        UserError: a vocabulary is damaged, or belongs to another data set.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    for feature in manifest.categorical:
        path = file_of(folder, feature.name)
        if not PATHS.exists(path):
            yield None
            continue
        try:
            with PATHS.open(path, "rb") as file:
                counts = pq.read_table(file, columns=["count"])["count"].to_numpy()
        except (OSError, KeyError, pa.ArrowException) as error:
            raise unreadable(path, error) from None
        if counts.dtype.kind != "i" or len(counts) != feature.cardinality - RARE_ID - 1:
            raise other_vocabulary(path)
        yield counts.astype(np.int64)


def _sampled_counts(folder: str, manifest: Manifest) -> Iterator[NDArray[np.int64] | None]:
    """Yields for every categorical feature the counts of its ids from 2 on in evenly spread row groups of the train split; None if there
    are no rows."""
    split = manifest.splits.get("train") or next(iter(manifest.splits.values()))
    groups = row_groups(folder, split.shards)
    if not groups:
        yield from (None for _ in manifest.categorical)
        return
    wanted = max(min(len(groups), SAMPLE_ROWS * len(groups) // max(split.rows, 1)), 1)
    chosen = [groups[at * len(groups) // wanted] for at in range(wanted)]
    for feature in manifest.categorical:
        columns = [read_row_group(folder, split.shards, group, [feature.name]).column(feature.name) for group in chosen]
        ids = np.concatenate([_flat(column) for column in columns])
        yield np.unique(ids[ids > RARE_ID], return_counts=True)[1].astype(np.int64)


def _flat(column: Any) -> NDArray[Any]:
    """The ids of a column; of a multi-valued column, those of all bags."""
    import pyarrow as pa

    whole = column.combine_chunks()
    if pa.types.is_list(whole.type) or pa.types.is_large_list(whole.type):
        whole = whole.flatten()
    return np.asarray(whole.to_numpy(zero_copy_only=False))


def _feature(feature: CategoricalFeature, counts: NDArray[np.int64] | None) -> FeatureFacts:
    common = feature.name, feature.kind, feature.cardinality, feature.missing_share, feature.rare_share
    if counts is None:
        return FeatureFacts(*common, None, None)
    own = max(1 - feature.missing_share - feature.rare_share, 0.0)
    shares = np.sort(counts)[::-1] * (own / max(int(counts.sum()), 1))
    cumulative = np.cumsum(shares)
    places = [10**power for power in range(10) if 10**power < len(shares)]
    top = [(k, float(cumulative[k - 1])) for k in places] + ([(len(shares), float(cumulative[-1]))] if len(shares) else [])
    all_shares = np.concatenate([shares, [feature.missing_share, feature.rare_share]])
    positive = all_shares[all_shares > 0]
    return FeatureFacts(*common, top, float(np.exp(-(positive * np.log(positive)).sum())))
