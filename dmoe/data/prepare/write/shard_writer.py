"""Writes a shard, and counts its missing values, ids and weights.

Shapes: R rows that are written.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dmoe.data.dataset.manifest import GROUP, MISSING_ID, RARE_ID, WEIGHT
from dmoe.data.parquet import ShardFile, require_finite_columns
from dmoe.data.prepare.tokens import kernels
from dmoe.data.prepare.write.mapped_rows import Job, Mapped
from dmoe.data.prepare.write.shuffle import ORDER, SortedFile

TYPES = {"label": np.uint8, WEIGHT: np.float32, GROUP: np.int64, ORDER: np.uint64}
Extent = Mapping[str, tuple[float, float]]
"""Feature -> (lowest, highest) of its numbers or ids."""


def joined(extents: Iterable[Extent]) -> dict[str, tuple[float, float]]:
    """The extent of the rows of all extents together."""
    found: dict[str, tuple[float, float]] = {}
    for one in extents:
        for name, (low, high) in one.items():
            before = found.get(name, (low, high))
            found[name] = min(before[0], low), max(before[1], high)
    return found


def constants(extents: Iterable[Extent], names: Sequence[str]) -> list[str]:
    """The features among `names` that have one value in all rows. Multi-valued features have no extent and are never constant."""
    extent = joined(extents)
    return [name for name in names if name in extent and extent[name][0] == extent[name][1]]


@dataclass
class ShardWriter:
    """Writes one shard, or, if it is to be shuffled, one sorted file. Rows are buffered until they fill a row group."""

    path: str
    job: Job
    shuffled: bool
    columns: dict[str, NDArray[Any]] = field(init=False)
    bags: dict[str, list[pa.ListArray]] = field(init=False)
    missing: dict[str, int] = field(init=False)
    ids: dict[str, NDArray[np.int64]] = field(init=False)
    extent: dict[str, tuple[float, float]] = field(default_factory=dict)
    weights: list[NDArray[np.float32]] = field(default_factory=list)
    labels: list[NDArray[np.uint8]] = field(default_factory=list)
    buffered: int = 0
    rows: int = 0
    positives: int = 0
    file: ShardFile | SortedFile = field(init=False)

    def __post_init__(self) -> None:
        self.path += ".arrow" if self.shuffled else ".parquet"
        self.file = SortedFile(self.path) if self.shuffled else ShardFile(self.path, self.job.many)
        schema, room = self.job.tokens.schema, self.job.row_group_rows
        types = TYPES | {one.name: np.float32 for one in schema.dense} | {one.name: np.int32 for one in schema.categorical}
        bags = [one.name for one in schema.categorical if one.pooling]
        # In the order of the shards' columns.
        names = ["label"] * self.job.labelled + [one.name for one in schema.features] + self.job.extra + [ORDER] * self.shuffled
        self.order = names
        self.columns = {name: np.empty(room, types[name]) for name in {"label", *names} - set(bags)}
        self.bags = {name: [] for name in bags}
        self.missing = {one.name: 0 for one in schema.dense}
        self.ids = {one.name: np.zeros(3, np.int64) for one in schema.categorical}

    def add(self, mapped: Mapped, row_R: NDArray[np.int64]) -> None:
        """Appends the given rows."""
        while len(row_R):
            now, row_R = row_R[: self.job.row_group_rows - self.buffered], row_R[self.job.row_group_rows - self.buffered :]
            here = slice(self.buffered, self.buffered + len(now))
            for name, (codes, of_code) in ((name, mapped.scalars[name]) for name in self.columns):
                missing, rare = kernels.gather(codes, now, of_code, self.columns[name][here])
                if name in self.ids:
                    self.ids[name] += (missing, rare, len(now))
                elif name in self.missing:
                    self.missing[name] += missing
            for name, bags in mapped.bags.items():
                taken = bags.take(pa.array(now))
                flat = taken.flatten().to_numpy()
                self.ids[name] += ((flat == MISSING_ID).sum(), (flat == RARE_ID).sum(), len(flat))
                self.bags[name].append(taken)
            self.buffered += len(now)
            if self.buffered == self.job.row_group_rows:
                self._flush()

    def _flush(self) -> None:
        n = self.buffered
        arrays = {name: pa.array(column[:n]) for name, column in self.columns.items()}
        arrays |= {name: pa.concat_arrays(pieces) for name, pieces in self.bags.items()}
        table = pa.table({name: arrays[name] for name in self.order})
        require_finite_columns(self.path, table, self.rows)
        self.file.write(table, n)
        features = [name for name in self.order if name in self.columns and (name in self.missing or name in self.ids)]
        here = {name: (float(self.columns[name][:n].min()), float(self.columns[name][:n].max())) for name in features}
        self.extent = joined([self.extent, here])
        label_R = self.columns["label"][:n]
        if WEIGHT in self.columns:
            self.weights.append(self.columns[WEIGHT][:n].copy())
            self.labels.append(label_R.copy())
        self.rows, self.positives, self.buffered = self.rows + n, self.positives + int(label_R.sum()) * self.job.labelled, 0
        self.bags = {name: [] for name in self.bags}
        if self.shuffled:
            # The file refers to the old arrays.
            self.columns = {name: np.empty_like(column) for name, column in self.columns.items()}

    def close(self) -> tuple[str, int, int, str] | None:
        """Finishes the file; (path, rows, positives, sha256), or None if there are no rows."""
        if self.buffered:
            self._flush()
        sha256 = self.file.close()
        return (self.path, self.rows, self.positives, sha256) if sha256 else None

    def weight(self) -> tuple[float, float]:
        """The total weight of the rows, and that of the positives."""
        if not self.weights:
            return float(self.rows), float(self.positives)
        weight_R = np.concatenate(self.weights).astype(np.float64)
        return float(weight_R.sum()), float(weight_R[np.concatenate(self.labels) > 0].sum())
