"""Exact bytes that a change from one plan to another moves, from the rectangles of the shards of each table.

A rank keeps the part of its new rectangles that it already held under the first plan, and receives the rest from other ranks. A
data-parallel table is complete on every rank: changing from data-parallel moves nothing, changing to it fills every rank.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmoe.model.budget.cost import STATES_A_NUMBER
from dmoe.sharding.planner.cost.cost_model import NUMBER, shards_of

Rectangles = NDArray[np.int64]
"""[n, 5]: row, column, rows, columns, rank."""


@dataclass(frozen=True)
class Moved:
    """Bytes that move for one table. `received`: [ranks] bytes for each rank of the second plan."""

    weights: int
    state: int
    received: NDArray[np.int64]

    @property
    def bytes(self) -> int:
        return self.weights + self.state


def moved(before: Mapping[str, Any], after: Mapping[str, Any], ranks: tuple[int, int], optimizers: tuple[str, str]) -> Moved:
    """Bytes that move for one table, which has the same size in both plans.

    Args:
        before, after: its entries in the two plans, which have these `ranks` and `optimizers`. If the optimizers differ, no state is moved,
            since the new one starts with empty state.
    """
    old, new = (rectangles(row, count) for row, count in zip((before, after), ranks, strict=True))
    keeps_state = optimizers[0] == optimizers[1]
    states = STATES_A_NUMBER[optimizers[1]] if keeps_state else 0
    by_row = keeps_state and optimizers[1] == "rowwise_adagrad"
    received = np.zeros((2, ranks[1]), np.int64)
    for rank in np.unique(new[:, 4]):
        mine, theirs = new[new[:, 4] == rank], old[old[:, 4] == rank]
        missing = int((mine[:, 2] * mine[:, 3]).sum() - (_overlap(mine, theirs, 0) * _overlap(mine, theirs, 1)).sum())
        received[0, rank] = missing * NUMBER
        received[1, rank] = missing * NUMBER * states
        if by_row:
            # One state per row of a shard: it can be kept only if the shard has the same columns.
            same = (mine[:, None, [1, 3]] == theirs[None, :, [1, 3]]).all(2)
            held = (_overlap(mine, theirs, 0) * same).sum()
            received[1, rank] = int(mine[mine[:, 3] > 0, 2].sum() - held) * NUMBER
    return Moved(int(received[0].sum()), int(received[1].sum()), received.sum(0))


def rectangles(row: Mapping[str, Any], ranks: int) -> Rectangles:
    """The shards of a table; a data-parallel table has one complete shard per rank."""
    shards = [[shard[key] for key in ("row", "column", "rows", "columns", "rank")] for shard in shards_of(row, ranks)]
    return np.array(shards, np.int64).reshape(-1, 5)


def _overlap(mine: Rectangles, theirs: Rectangles, side: int) -> NDArray[np.int64]:
    """[mine, theirs] number of overlapping rows (side 0) or columns (side 1)."""
    start = np.maximum(mine[:, None, side], theirs[None, :, side])
    end = np.minimum(mine[:, None, side] + mine[:, None, side + 2], theirs[None, :, side] + theirs[None, :, side + 2])
    overlap: NDArray[np.int64] = np.maximum(end - start, 0)
    return overlap
