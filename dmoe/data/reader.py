"""Batches from shards: the same global batches for any number of ranks.

The rows of an epoch have one global order, a function of seed and epoch alone. Step t's global batch is rows [t * G, (t + 1) * G)
of it, and a rank takes its own part of those. So a position is one number, and any number of ranks can go on from it.

Shapes: B rows of a rank's batch, F categorical and D dense features.
"""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from dmoe.data.ahead import ahead
from dmoe.data.bags import Bags
from dmoe.data.batch import Batch
from dmoe.data.columns import Columns, SplitColumns, joined
from dmoe.data.criteo import LABEL
from dmoe.data.manifest import GROUP, WEIGHT, CategoricalFeature, Manifest
from dmoe.data.shard_files import RowGroup
from dmoe.errors import UserError


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
        pin_memory: batches lie in page-locked memory, from which a GPU copies while it computes; the thread pins them.

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
        pin_memory: bool = False,
    ) -> None:
        if not manifest.split(split).labelled:
            raise UserError(f"{folder}: split '{split}' has no labels to train on or to measure by; tools/score.py scores it")
        self.shards = manifest.split(split).shards
        self.features, self.dense = list(features), list(dense)
        self.shuffle, self.seed, self.prefetch, self.pin_memory = shuffle, seed, prefetch, pin_memory
        self.window = window_row_groups if shuffle == "window" else 1
        self._windows: OrderedDict[tuple[int, int], Columns] = OrderedDict()
        self._ordered: tuple[int, list[list[RowGroup]], np.ndarray] | None = None
        self._columns = SplitColumns(folder, manifest, split, features, dense)
        self.rows = sum(group.rows for group in self._columns.groups)

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
        if self.pin_memory:
            batches = (batch.pin_memory() for batch in batches)
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
        label[:rows], weight[:rows] = columns[LABEL], columns.get(WEIGHT, 1)
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
            return self._columns.none()
        return parts[0] if len(parts) == 1 else joined(parts)

    def _order(self, epoch: int) -> tuple[list[list[RowGroup]], np.ndarray]:
        """The epoch's windows, each of its row groups in order, and the place of each one's first row [windows + 1]."""
        if self._ordered and self._ordered[0] == epoch:
            return self._ordered[1:]
        order = np.arange(len(self._columns.groups))
        if self.shuffle != "none":
            order = np.random.default_rng([self.seed, epoch]).permutation(order)
        groups = [self._columns.groups[index] for index in order]
        windows = [groups[index : index + self.window] for index in range(0, len(groups), self.window)]
        rows = [sum(group.rows for group in window) for window in windows]
        self._ordered = epoch, windows, np.concatenate([[0], np.cumsum(rows)])
        return self._ordered[1:]

    def _window(self, epoch: int, index: int, groups: list[RowGroup]) -> Columns:
        """The decoded rows of a window, in its shuffled order; the last two are kept, since batches straddle windows."""
        if (epoch, index) not in self._windows:
            columns = joined([self._columns.read(group) for group in groups])
            if self.shuffle == "window":
                order = np.random.default_rng([self.seed, epoch, index]).permutation(len(columns[LABEL]))
                columns = {name: column[order] for name, column in columns.items()}
            self._windows[epoch, index] = columns
            while len(self._windows) > 2:
                self._windows.popitem(last=False)
        self._windows.move_to_end((epoch, index))
        return self._windows[epoch, index]
