"""Detects tables that are not updated. That would happen silently if, for example, data-parallel tables had no optimizer."""

from collections.abc import Sequence

import torch
from torch import nn

from dmoe.distributed import all_reduce_sum
from dmoe.model.embedding.tables import Table
from dmoe.sharding.plan.local_shards import local_shards

HEAD_ROWS = 4096
"""Ids are ordered by frequency, so the first steps look up the first rows of a table."""


class TablesMoved:
    """Copies the first rows of every table, and checks once whether they have changed.

    Args:
        device: of this rank.
    """

    def __init__(self, model: nn.Module, tables: Sequence[Table], device: torch.device) -> None:
        self.model, self.tables, self.device = model, list(tables), device
        self.heads = [shard.weight[:HEAD_ROWS].clone() for shard in local_shards(model, tables) if shard.row == 0]
        self.checked = False

    def check(self) -> None:
        """Raises RuntimeError if the first rows of some table have not changed: a bug of dmoe, or a feature that is missing in all rows."""
        if self.checked:
            return
        self.checked = True
        moved = {table.name: 0.0 for table in self.tables}
        shards = [shard for shard in local_shards(self.model, self.tables) if shard.row == 0]
        for shard, head in zip(shards, self.heads, strict=True):
            moved[shard.table.name] += float(not torch.equal(shard.weight[:HEAD_ROWS], head))
        self.heads.clear()
        # On the device of the group: a rank without a shard of some table has an empty parameter instead, perhaps on another device.
        counts = all_reduce_sum(torch.tensor(list(moved.values()), device=self.device)).tolist()
        still = [name for name, count in zip(moved, counts, strict=True) if not count]
        if still:
            raise RuntimeError(f"table '{still[0]}' did not change in the first steps ({len(still)} of {len(moved)} tables)")
