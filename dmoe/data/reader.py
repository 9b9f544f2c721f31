"""Batches from shards: the same global batches for any number of ranks.

The rows of an epoch have one global order, a function of seed and epoch alone. Step t's global batch is rows [t * G, (t + 1) * G)
of it, and a rank takes its own part of those. So a position is one number, and any number of ranks can go on from it.

Shapes: B rows of a rank's batch, F categorical and D dense features.
"""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from dmoe.data import bags
from dmoe.data.ahead import ahead
from dmoe.data.bags import Bags
from dmoe.data.batch import Batch
from dmoe.data.manifest import GROUP, WEIGHT, CategoricalFeature, Manifest
from dmoe.errors import UserError
from dmoe.paths import PATHS, join

Columns = dict[str, Any]
"""Of each column its numbers [N], or its Bags where it is multi-valued."""


@dataclass(frozen=True)
class _RowGroup:
    shard: int
    group: int
    first_row: int
    rows: int


class Reader:
    """Reads a split as batches.

    Args:
        folder: of the data set.
        manifest: its manifest.
        split: such as `train`.
        features: the categorical features to read, in the model's order.
        dense: the dense features to read, in order.
        shuffle: `window` mixes the rows of `window_row_groups` row groups drawn from anywhere in the split, `row_groups` draws row
            groups only, `none` keeps the order of the files.
        seed: of the order.
        prefetch: batches that a thread prepares ahead; 0 reads when asked.

    Raises:
        UserError: a shard is missing, or is not what the manifest says.
    """

    def __init__(
        self,
        folder: str,
        manifest: Manifest,
        split: str,
        features: Sequence[CategoricalFeature],
        dense: Sequence[str],
        shuffle: str = "none",
        window_row_groups: int = 8,
        seed: int = 0,
        prefetch: int = 2,
    ) -> None:
        self.folder, self.split = folder, split
        if not manifest.split(split).labelled:
            raise UserError(f"{folder}: split '{split}' has no labels to train on or to measure by; tools/score.py scores it")
        self.shards = manifest.split(split).shards
        self.features, self.dense = list(features), list(dense)
        self.extra = [name for name, given in ((WEIGHT, manifest.weight), (GROUP, manifest.group)) if given]
        self.names = ["label", *self.dense, *(feature.name for feature in self.features), *self.extra]
        self.shuffle, self.seed, self.prefetch = shuffle, seed, prefetch
        self.window = window_row_groups if shuffle == "window" else 1
        self._files: OrderedDict[int, pq.ParquetFile] = OrderedDict()
        self._windows: OrderedDict[tuple[int, int], Columns] = OrderedDict()
        self._groups = [group for index in range(len(self.shards)) for group in self._row_groups(index)]
        self.rows = sum(group.rows for group in self._groups)

    @property
    def order(self) -> str:
        """Names the order of rows that positions count in: equal only for the same shards, shuffle and seed."""
        shards = [(shard.path, shard.rows, shard.sha256) for shard in self.shards]
        seed = None if self.shuffle == "none" else self.seed
        return hashlib.sha256(json.dumps([shards, self.shuffle, self.window, seed]).encode()).hexdigest()[:32]

    def steps(self, batch_size: int, start_row: int = 0) -> int:
        """Steps that are left of an epoch from a position: the last one may be smaller."""
        return -(-(self.rows - start_row) // batch_size)

    def batches(
        self, batch_size: int, rank: int, world_size: int, epoch: int = 0, start_row: int = 0, max_steps: int | None = None
    ) -> Iterator[Batch]:
        """This rank's batches of an epoch from a position on; every rank gets as many, each of as many rows.

        Args:
            batch_size: rows of the global batch.
            epoch: which order.
            start_row: how many rows of the epoch are used up already.
            max_steps: stop after so many.
        """
        steps = self.steps(batch_size, start_row)
        steps = steps if max_steps is None else min(steps, max_steps)
        jobs = ((start_row + i * batch_size, min(start_row + (i + 1) * batch_size, self.rows)) for i in range(steps))
        batches = (self._batch(epoch, *span, rank, world_size) for span in jobs)
        return ahead(batches, self.prefetch) if self.prefetch else batches

    def _batch(self, epoch: int, start: int, stop: int, rank: int, world_size: int) -> Batch:
        size = -(-(stop - start) // world_size)
        low, high = min(start + rank * size, stop), min(start + (rank + 1) * size, stop)
        columns, rows = self._rows(epoch, low, high), high - low
        padding = size - rows
        dense = np.zeros((size, len(self.dense)), np.float32)
        for index, name in enumerate(self.dense):
            dense[:rows, index] = columns[name]
        lengths = np.zeros((len(self.features), size), np.int32)
        lengths[:, :rows] = 1
        found = [columns[feature.name] for feature in self.features]
        values = [one.values if isinstance(one, Bags) else one for one in found]
        ids, first = np.empty(sum(map(len, values)), np.int64), 0
        for index, (one, part) in enumerate(zip(found, values, strict=True)):
            ids[first : first + len(part)] = part
            first += len(part)
            if isinstance(one, Bags):
                lengths[index, :rows] = one.lengths
        label, weight = np.zeros(size, np.float32), np.zeros(size, np.float32)
        label[:rows], weight[:rows] = columns["label"], columns.get(WEIGHT, 1)
        group = np.zeros(size, np.int64) if GROUP in columns else None
        if group is not None:
            group[:rows] = columns[GROUP]
        assert padding >= 0
        sparse = KeyedJaggedTensor(
            keys=[feature.name for feature in self.features],
            values=torch.from_numpy(ids),
            lengths=torch.from_numpy(lengths.reshape(-1)),
            stride=size,
        )
        parts = (torch.from_numpy(dense), sparse, torch.from_numpy(label), torch.from_numpy(weight))
        return Batch(*parts, None if group is None else torch.from_numpy(group))

    def _rows(self, epoch: int, low: int, high: int) -> Columns:
        """Rows [low, high) of the epoch's global order."""
        windows, starts = self._order(epoch)
        parts: list[Columns] = []
        index = int(np.searchsorted(starts, low, side="right")) - 1
        while low < high:
            start, stop = int(starts[index]), int(starts[index + 1])
            take = slice(low - start, min(high, stop) - start)
            window = self._window(epoch, index, windows[index])
            parts.append({name: column[take] for name, column in window.items()})
            low, index = min(high, stop), index + 1
        if not parts:
            multi_valued = {feature.name for feature in self.features if feature.multi_valued}
            return {name: bags.empty() if name in multi_valued else np.empty(0, np.int32) for name in self.names}
        return parts[0] if len(parts) == 1 else _joined(parts)

    def _order(self, epoch: int) -> tuple[list[list[_RowGroup]], np.ndarray]:
        order = np.arange(len(self._groups))
        if self.shuffle != "none":
            order = np.random.default_rng([self.seed, epoch]).permutation(order)
        groups = [self._groups[index] for index in order]
        windows = [groups[index : index + self.window] for index in range(0, len(groups), self.window)]
        rows = [sum(group.rows for group in window) for window in windows]
        return windows, np.concatenate([[0], np.cumsum(rows)])

    def _window(self, epoch: int, index: int, groups: list[_RowGroup]) -> Columns:
        """The decoded rows of a window, in its shuffled order; the last two are kept, since batches straddle windows."""
        if (epoch, index) not in self._windows:
            parts = [self._read(group) for group in groups]
            columns = _joined(parts)
            if self.shuffle == "window":
                order = np.random.default_rng([self.seed, epoch, index]).permutation(len(columns["label"]))
                columns = {name: column[order] for name, column in columns.items()}
            self._windows[epoch, index] = columns
            while len(self._windows) > 2:
                self._windows.popitem(last=False)
        self._windows.move_to_end((epoch, index))
        return self._windows[epoch, index]

    def _read(self, group: _RowGroup) -> Columns:
        path = self.shards[group.shard].path
        try:
            table = self._file(group.shard).read_row_group(group.group, columns=self.names, use_threads=False)
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"{join(self.folder, path)}: cannot be read ({_first_line(error)}); make the data set again") from None
        columns: Columns = {}
        for name in self.names:
            column = table.column(name)
            if column.null_count:
                row = int(np.flatnonzero(column.is_null().to_numpy())[0])
                raise UserError(
                    f"{name}: no value at row {group.first_row + row:,} of {path}; shards have none empty, make the data set again"
                )
            if pa.types.is_list(column.type) and pc.list_flatten(column).null_count:
                raise UserError(f"{name}: an id without a value in {path}; shards have none empty, make the data set again")
            columns[name] = _bags(column) if pa.types.is_list(column.type) else column.to_numpy()
        self._check(columns["label"] > 1, "label", columns["label"], "expected 0 or 1", path, group)
        for name in self.dense:
            self._check(~np.isfinite(columns[name]), name, columns[name], "expected a finite number", path, group)
        if WEIGHT in columns:
            wrong = ~(np.isfinite(columns[WEIGHT]) & (columns[WEIGHT] > 0))
            self._check(wrong, WEIGHT, columns[WEIGHT], "expected a finite number above 0", path, group)
        for feature in self.features:
            self._check_ids(feature, columns[feature.name], path, group)
        return columns

    def _check(self, bad: np.ndarray, name: str, values: np.ndarray, expected: str, path: str, group: _RowGroup) -> None:
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise UserError(f"{name}: {values[row]} at row {group.first_row + row:,} of {path}, {expected}; make the data set again")

    def _check_ids(self, feature: CategoricalFeature, column: Any, path: str, group: _RowGroup) -> None:
        ids = column.values if isinstance(column, Bags) else column
        # The kernels would look up row 0 instead, and say so in a log line that names a table's number (torchrec issue 575).
        if ids.size and (ids.min() < 0 or ids.max() >= feature.cardinality):
            place = int(np.flatnonzero((ids < 0) | (ids >= feature.cardinality))[0])
            row = int(np.searchsorted(column.offsets, place, side="right")) - 1 if isinstance(column, Bags) else place
            raise UserError(
                f"{feature.name}: id {ids[place]} at row {group.first_row + row:,} of {path},"
                f" but the manifest has {feature.cardinality:,} ids (0..{feature.cardinality - 1})"
            )

    def _row_groups(self, shard: int) -> Iterator[_RowGroup]:
        path = join(self.folder, self.shards[shard].path)
        file = self._file(shard)
        types = dict(zip(file.schema_arrow.names, file.schema_arrow.types, strict=True))
        expected = {"label": pa.uint8()} | dict.fromkeys(self.dense, pa.float32())
        expected |= {feature.name: pa.list_(pa.int32()) if feature.multi_valued else pa.int32() for feature in self.features}
        expected |= {name: dtype for name, dtype in ((WEIGHT, pa.float32()), (GROUP, pa.int64())) if name in self.extra}
        for name, dtype in expected.items():
            if name not in types:
                raise UserError(f"{path}: no column '{name}', which the manifest names; make the data set again")
            if file.schema_arrow.names.count(name) > 1:
                raise UserError(f"{path}: two columns '{name}'; make the data set again")
            found = pa.list_(types[name].value_type) if pa.types.is_list(types[name]) else types[name]
            if found != dtype:
                raise UserError(f"{path}: column '{name}' is {str(types[name])[:80]}, expected {dtype}; make the data set again")
        first = 0
        for index in range(file.metadata.num_row_groups):
            rows = file.metadata.row_group(index).num_rows
            yield _RowGroup(shard, index, first, rows)
            first += rows
        if first != self.shards[shard].rows:
            raise UserError(f"{path}: has {first:,} rows, the manifest says {self.shards[shard].rows:,}; make the data set again")

    def _file(self, shard: int) -> pq.ParquetFile:
        if shard not in self._files:
            path = join(self.folder, self.shards[shard].path)
            if not PATHS.exists(path):
                raise UserError(f"{path}: missing, but the manifest names it; copy it back or make the data set again")
            try:
                self._files[shard] = pq.ParquetFile(PATHS.open(path, "rb"), page_checksum_verification=True)
            except (OSError, pa.ArrowException) as error:
                raise UserError(f"{path}: not a readable parquet file ({_first_line(error)}); make the data set again") from None
            while len(self._files) > 64:
                self._files.popitem(last=False)[1].close()
        return self._files[shard]


def _joined(parts: list[Columns]) -> Columns:
    """The rows of all parts, in order."""
    first = parts[0].items()
    return {
        name: (bags.concatenate if isinstance(column, Bags) else np.concatenate)([part[name] for part in parts]) for name, column in first
    }


def _bags(column: pa.ChunkedArray) -> Bags:
    array = column.combine_chunks()
    offsets = array.offsets.to_numpy().astype(np.int64)
    return Bags(array.flatten().to_numpy(), offsets - offsets[0])


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
