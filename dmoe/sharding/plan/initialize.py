"""Initial weights that depend on the seed alone, not on the plan, the layout or the number of ranks."""

from collections.abc import Sequence

import torch
from torch import nn

from dmoe.model.initial_weights import BLOCK_ROWS, initial_block
from dmoe.model.tables import Table
from dmoe.sharding.plan.local_shards import local_shards


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
