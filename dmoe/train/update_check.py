"""Notices tables that do not train: with data-parallel tables and one optimiser too few, that happens silently."""

from collections.abc import Sequence

import torch
from torch import nn

from dmoe.distributed import all_reduce_sum
from dmoe.model.tables import Table
from dmoe.sharding.plan.local_shards import local_shards

HEAD_ROWS = 4096
"""Ids are sorted by frequency, so the head of a table is what the first steps look up."""


class TablesMoved:
    """Keeps the head of every table and asks, once, whether it changed.

    Args:
        device: of this rank.
    """

    def __init__(self, model: nn.Module, tables: Sequence[Table], device: torch.device) -> None:
        self.model, self.tables, self.device = model, list(tables), device
        self.heads = [shard.weight[:HEAD_ROWS].clone() for shard in local_shards(model, tables) if shard.row == 0]
        self.checked = False

    def check(self) -> None:
        """Fails if some table's head is what it was. A failed check is a bug of ours, or a feature that no row has a value of."""
        if self.checked:
            return
        self.checked = True
        moved = {table.name: 0.0 for table in self.tables}
        shards = [shard for shard in local_shards(self.model, self.tables) if shard.row == 0]
        for shard, head in zip(shards, self.heads, strict=True):
            moved[shard.table.name] += float(not torch.equal(shard.weight[:HEAD_ROWS], head))
        self.heads.clear()
        # The group's own device: a rank without a shard of some table has an empty parameter in its place, which may be on another one.
        counts = all_reduce_sum(torch.tensor(list(moved.values()), device=self.device)).tolist()
        still = [name for name, count in zip(moved, counts, strict=True) if not count]
        if still:
            raise RuntimeError(f"table '{still[0]}' did not change in the first steps ({len(still)} of {len(moved)} tables)")
