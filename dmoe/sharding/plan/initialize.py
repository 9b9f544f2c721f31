"""Initial weights that depend only on the seed, not on the plan, the layout or the number of ranks."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from dmoe.model.embedding.initial_weights import BLOCK_ROWS, initial_block
from dmoe.model.embedding.tables import Table
from dmoe.sharding.plan.local_shards import LocalShard, local_shards


@torch.no_grad()
def initialize_tables(model: nn.Module, tables: Sequence[Table], seed: int, std: float) -> None:
    """Draws the weights of this rank's shards, in bounded memory; padding columns become 0.

    TorchRec initializes each shard when it shards a module, so its weights depend on the plan, and it does not copy the weights of the
    unsharded module.
    """
    for shard in local_shards(model, tables):
        shard.weight.zero_()
        end = shard.row + len(shard.weight)
        for start, columns, values in _drawn(shard, range(shard.row // BLOCK_ROWS, -(-end // BLOCK_ROWS)), seed, std):
            low, high = max(start, shard.row), min(start + len(values), end)
            shard.weight[low - shard.row : high - shard.row, columns] = values[low - start : high - start]


@torch.no_grad()
def initialize_rows(
    model: nn.Module,
    tables: Sequence[Table],
    seed: int,
    std: float,
    rows_of: Mapping[str, np.ndarray],
    states_of: Callable[[LocalShard], Mapping[str, Tensor]],
) -> None:
    """Resets some rows: the weights that `initialize_tables` draws for them, and zero optimizer state. Other rows do not change.

    Each rank calls it for its own shards; works for all sharding types, layouts and optimizers. TorchRec's own row reset only clears the
    state of row-wise Adagrad (torchrec 1.8.0); with other optimizers, the state of the old token would affect the updates of the new one.

    Args:
        rows_of: feature -> rows of its tables to reset, ascending [n] int64.
        states_of: returns the optimizer state of a shard, views of [rows, columns] or [rows].
    """
    for shard in local_shards(model, tables):
        rows = rows_of.get(shard.table.feature)
        if rows is None:
            continue
        mine = rows[np.searchsorted(rows, shard.row) : np.searchsorted(rows, shard.row + len(shard.weight))]
        if not len(mine):
            continue
        local = torch.from_numpy(mine - shard.row).to(shard.weight.device)
        for tensor in (shard.weight, *states_of(shard).values()):
            tensor[local] = 0
        for start, columns, values in _drawn(shard, np.unique(mine // BLOCK_ROWS).tolist(), seed, std):
            some = mine[(mine >= start) & (mine < start + len(values))]
            here, there = (torch.from_numpy(some - first).to(values.device) for first in (start, shard.row))
            shard.weight[there, columns] = values[here]


def _drawn(shard: LocalShard, blocks: Iterable[int], seed: int, std: float) -> Iterator[tuple[int, slice, Tensor]]:
    """Yields the initial weights of blocks of rows: the first row in the table, the columns in the shard, and the numbers."""
    for section, first_column, columns in shard.pieces():
        for block in blocks:
            start = block * BLOCK_ROWS
            rows = min(BLOCK_ROWS, shard.table.rows - start)
            values = initial_block(seed, shard.table.logical_name(section), block, rows, section.dim, std)
            yield start, columns, values[:, first_column : first_column + columns.stop - columns.start].to(shard.weight)
