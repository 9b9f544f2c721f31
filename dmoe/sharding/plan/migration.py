"""What going from one plan to another would move: exact bytes, from the rectangles of every table's shards.

A rank of the second plan needs each of its rectangles; what the same rank number held of it under the first one stays, the rest comes
from other ranks. A data-parallel table lies whole on every rank, so leaving that state moves nothing, and entering it fills every rank.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmoe.sharding.planner.cost.cost_model import NUMBER, STATES_A_NUMBER, shards_of

Rectangles = NDArray[np.int64]
"""[n, 5] row, column, rows, columns, rank."""


@dataclass(frozen=True)
class Moved:
    """Bytes of one table. `received` is by rank of the second plan: [ranks]."""

    weights: int
    state: int
    received: NDArray[np.int64]

    @property
    def bytes(self) -> int:
        return self.weights + self.state


def moved(before: Mapping[str, Any], after: Mapping[str, Any], ranks: tuple[int, int], optimizers: tuple[str, str]) -> Moved:
    """What a table's move takes.

    Args:
        before, after: the table's entries in two plans, of equal size.
        ranks: world sizes of both.
        optimizers: of both; the state of another optimizer is no use, and begins anew.
    """
    old, new = (rectangles(row, count) for row, count in zip((before, after), ranks, strict=True))
    keeps_state = optimizers[0] == optimizers[1]
    states = STATES_A_NUMBER[optimizers[1]] if keeps_state else 0
    by_row = keeps_state and optimizers[1] == "rowwise_adagrad"
    received = np.zeros((2, ranks[1]), np.int64)
    for rank in np.unique(new[:, 4]):
        mine, theirs = new[new[:, 4] == rank], old[old[:, 4] == rank]
        missing = int((mine[:, 2] * mine[:, 3]).sum() - _common(mine, theirs).sum())
        received[0, rank] = missing * NUMBER
        received[1, rank] = missing * NUMBER * states
        if by_row:
            # One state a row of a shard: it is the same number where the shard has the same columns.
            same = (mine[:, None, [1, 3]] == theirs[None, :, [1, 3]]).all(2)
            held = (_overlap(mine, theirs, 0) * same).sum()
            received[1, rank] = int(mine[mine[:, 3] > 0, 2].sum() - held) * NUMBER
    return Moved(int(received[0].sum()), int(received[1].sum()), received.sum(0))


def rectangles(row: Mapping[str, Any], ranks: int) -> Rectangles:
    """A table's shards; a data-parallel one's are whole, one a rank."""
    shards = [[shard[key] for key in ("row", "column", "rows", "columns", "rank")] for shard in shards_of(row, ranks)]
    return np.array(shards, np.int64).reshape(-1, 5)


def _overlap(mine: Rectangles, theirs: Rectangles, side: int) -> NDArray[np.int64]:
    """[mine, theirs] how far they overlap by rows (side 0) or by columns (1)."""
    start = np.maximum(mine[:, None, side], theirs[None, :, side])
    end = np.minimum(mine[:, None, side] + mine[:, None, side + 2], theirs[None, :, side] + theirs[None, :, side + 2])
    overlap: NDArray[np.int64] = np.maximum(end - start, 0)
    return overlap


def _common(mine: Rectangles, theirs: Rectangles) -> NDArray[np.int64]:
    return _overlap(mine, theirs, 0) * _overlap(mine, theirs, 1)
