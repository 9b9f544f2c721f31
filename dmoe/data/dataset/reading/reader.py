"""Reads batches from shards. The global batches are the same for any number of ranks.

The rows of an epoch have one global order (`dmoe.data.dataset.reading.epoch_order`), which depends on seed and epoch only. The global
batch of step t is the positions [t * G, (t + 1) * G) of that order, and each rank reads its part of them. The position in the data is
therefore one number, from which any number of ranks can resume.

Shapes: B rows of a rank's batch, F categorical and D dense features.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from dmoe.data.dataset.batch import Batch
from dmoe.data.dataset.manifest import GROUP, WEIGHT, CategoricalFeature, Manifest
from dmoe.data.dataset.reading.bags import Bags
from dmoe.data.dataset.reading.epoch_order import EpochOrder, order_name
from dmoe.data.dataset.reading.prefetch import ahead
from dmoe.data.dataset.reading.split_columns import Columns, SplitColumns, joined
from dmoe.errors import UserError
from dmoe.names import LABEL


class Reader:
    """Reads a split as batches.

    Args:
        folder: of the data set.
        manifest: its manifest.
        split: such as `train`.
        features: the categorical features to read, in the order of the model.
        dense: the dense features to read, in order.
        shuffle: `window` shuffles row groups and the rows within each; `row_groups` shuffles row groups only; `turns` shuffles nothing, but
            row groups take turns; `none` keeps the order of the files.
        window_row_groups: number of row groups that take turns, unless shuffle is `none`; a batch mixes their rows. If there are more ranks
            than that, several ranks decode the same row group.
        seed: of the shuffle.
        prefetch: number of batches that a thread prepares ahead; 0 for none.
        lookups: converts the ids of a batch to the rows that the tables of the model look up.
        pin_memory: puts batches into page-locked memory, from which a GPU can copy while it computes.
        rows: for a feature, a map [cardinality] int32 from its ids to those of the model, if they differ.

    Raises:
        UserError: a shard is missing, or does not agree with the manifest.
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
        lookups: Callable[[KeyedJaggedTensor], KeyedJaggedTensor] | None = None,
        rows: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        if not manifest.split(split).labelled:
            raise UserError(f"{folder}: split '{split}' has no labels to train on or to measure by; dmoe score scores it")
        self.shards = manifest.split(split).shards
        self.features, self.dense = list(features), list(dense)
        self.shuffle, self.seed, self.prefetch, self.pin_memory = shuffle, seed, prefetch, pin_memory
        self.lookups = lookups
        self._row_of = dict(rows or {})
        self.lanes = 1 if shuffle == "none" else window_row_groups
        self._decoded: dict[int, Columns] = {}
        self._ordered: tuple[int, EpochOrder] | None = None
        self._columns = SplitColumns(folder, manifest, split, features, dense)
        self.rows = sum(group.rows for group in self._columns.groups)
        self.name = f"{folder}, split '{split}'"

    def __str__(self) -> str:
        return self.name

    @property
    def order(self) -> str:
        """A name of the order of rows: equal only for the same shards, shuffle and seed."""
        return order_name(self.shards, self.shuffle, self.lanes, self.seed if self._drawn else None)

    @property
    def _drawn(self) -> bool:
        return self.shuffle in ("window", "row_groups")

    def steps(self, batch_size: int, start_row: int = 0) -> int:
        """Number of steps from a position to the end of an epoch. The last batch may be smaller."""
        return -(-(self.rows - start_row) // batch_size)

    def batches(
        self, batch_size: int, rank: int, world_size: int, epoch: int = 0, start_row: int = 0, max_steps: int | None = None
    ) -> Iterator[Batch]:
        """This rank's batches of an epoch from a position on. Every rank gets the same number of batches with the same number of rows.

        Args:
            batch_size: rows of the global batch.
            epoch: decides the order of the rows.
            start_row: number of rows of the epoch that were used before.
            max_steps: most steps.
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
        order = self._order(epoch)
        columns, rows = self._rows(epoch, order.spans(start, stop, rank, world_size))
        # Keep the row groups of all lanes, not only those in this batch: a rank may have no row of some lane in one batch, and in the next
        # one again.
        going_on = order.going_on(stop)
        self._decoded = {index: kept for index, kept in self._decoded.items() if index in going_on}
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
        sparse = KeyedJaggedTensor(
            keys=[feature.name for feature in self.features],
            values=torch.from_numpy(ids),
            lengths=torch.from_numpy(lengths.reshape(-1)),
            stride=size,
        )
        if self.lookups is not None:
            sparse = self.lookups(sparse)
        parts = (torch.from_numpy(dense), sparse, torch.from_numpy(label), torch.from_numpy(weight))
        return Batch(*parts, None if group is None else torch.from_numpy(group))

    def _rows(self, epoch: int, spans: Sequence[tuple[int, int]]) -> tuple[Columns, int]:
        """The rows of some ranges of the epoch's sequence, and their number."""
        order, parts, rows = self._order(epoch), [], 0
        for low, high in spans:
            rows += high - low
            for index, some in order.pieces(low, high):
                if index not in self._decoded:
                    self._decoded[index] = self._decode(epoch, index)
                parts.append({name: column[some] for name, column in self._decoded[index].items()})
        if not parts:
            return self._columns.none(), 0
        return (parts[0] if len(parts) == 1 else joined(parts)), rows

    def _order(self, epoch: int) -> EpochOrder:
        if self._ordered is None or self._ordered[0] != epoch:
            places = np.arange(len(self._columns.groups))
            if self._drawn:
                places = np.random.default_rng([self.seed, epoch]).permutation(places)
            self._ordered = epoch, EpochOrder([self._columns.groups[place] for place in places], self.lanes)
            self._decoded = {}
        return self._ordered[1]

    def _decode(self, epoch: int, index: int) -> Columns:
        """Reads and shuffles the row group `index` of the epoch."""
        columns = self._columns.read(self._order(epoch).groups[index])
        for name, row_of in self._row_of.items():
            column = columns[name]
            columns[name] = Bags(row_of[column.values], column.offsets) if isinstance(column, Bags) else row_of[column]
        if self.shuffle != "window":
            return columns
        order = np.random.default_rng([self.seed, epoch, index]).permutation(len(columns[LABEL]))
        return {name: column[order] for name, column in columns.items()}
