"""Initial weights that depend on the seed alone, not on the plan, the layout or the number of ranks."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from dmoe.model.initial_weights import BLOCK_ROWS, initial_block
from dmoe.model.tables import Table
from dmoe.sharding.plan.local_shards import LocalShard, local_shards


@torch.no_grad()
def initialize_tables(model: nn.Module, tables: Sequence[Table], seed: int, std: float) -> None:
    """Draws the weights of this rank's shards, in bounded memory; padding columns become 0.

    TorchRec draws its own at sharding time, per shard, so that they depend on the plan, and does not carry over what the
    unsharded module held.
    """
    for shard in local_shards(model, tables):
        shard.weight.zero_()
        rows = shard.weight.shape[0]
        for section, first_column, columns in shard.pieces():
            width = columns.stop - columns.start
            for block in range(shard.row // BLOCK_ROWS, -(-(shard.row + rows) // BLOCK_ROWS)):
                start = block * BLOCK_ROWS
                drawn = min(BLOCK_ROWS, shard.table.rows - start)
                values = initial_block(seed, shard.table.logical_name(section), block, drawn, section.dim, std)
                low, high = max(start, shard.row), min(start + drawn, shard.row + rows)
                shard.weight[low - shard.row : high - shard.row, columns] = values[
                    low - start : high - start, first_column : first_column + width
                ].to(shard.weight)


@torch.no_grad()
def initialize_rows(
    model: nn.Module,
    tables: Sequence[Table],
    seed: int,
    std: float,
    rows_of: Mapping[str, np.ndarray],
    states_of: Callable[[LocalShard], Mapping[str, Tensor]],
) -> None:
    """Makes some rows new: the weights that `initialize_tables` draws for them, and empty optimizer state. Others stay as they are.

    Every rank calls it for its own shards, whatever the sharding type, layout and optimizer. TorchRec's own reset of a row leaves the
    state of all optimizers but row-wise Adagrad's (torchrec 1.8.0), so that another token's history would steer the new one's steps.

    Args:
        rows_of: of a feature, the rows of its tables, ascending [n] int64.
        states_of: a shard's optimizer state, views of [rows, columns] or [rows].
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
        for section, first_column, columns in shard.pieces():
            width = columns.stop - columns.start
            for block in np.unique(mine // BLOCK_ROWS).tolist():
                start = block * BLOCK_ROWS
                drawn = min(BLOCK_ROWS, shard.table.rows - start)
                values = initial_block(seed, shard.table.logical_name(section), block, drawn, section.dim, std)
                some = mine[(mine >= start) & (mine < start + drawn)]
                of_block = values[torch.from_numpy(some - start), first_column : first_column + width]
                shard.weight[torch.from_numpy(some - shard.row).to(shard.weight.device), columns] = of_block.to(shard.weight)
