"""The order of an epoch's rows, and which of them are a rank's: a function of seed and epoch, not of ranks.

The row groups, drawn in the epoch's order, make one sequence of rows. It is cut into L lanes of equal length, to a row, which take turns:
position p of the epoch is row p // L of lane p % L. So a batch mixes rows of L row groups, and a rank, whose part of each batch is that of
neighbouring lanes, decodes few row groups that other ranks decode too: about 1 / R of them where R ranks divide L, and L
divides the batch.

Shapes: G row groups, L lanes.
"""

import hashlib
from collections.abc import Sequence

import numpy as np

from dmoe.data.dataset.files import RowGroup
from dmoe.data.dataset.manifest import Shard
from dmoe.json_text import format_json


def order_name(shards: Sequence[Shard], shuffle: str = "none", lanes: int = 1, seed: int | None = None) -> str:
    """Names the order of rows that positions count in: equal only for the same shards, shuffle and seed. The files' order by default.

    Args:
        shuffle: as the reader's.
        lanes: row groups that take turns.
        seed: None where nothing is drawn.
    """
    files = [(shard.path, shard.rows, shard.sha256) for shard in shards]
    turns = ["turns"] if lanes > 1 else []
    return hashlib.sha256(format_json([files, shuffle, lanes, seed, *turns]).encode()).hexdigest()[:32]


class EpochOrder:
    """Args:
        groups: the split's row groups, as the epoch draws them.
        lanes: how many of them are read at once, where there are as many.

    Attributes:
        groups: as given.
        starts: the place of each row group's first row in the sequence, and the number of all rows at the end [G + 1].
    """

    def __init__(self, groups: Sequence[RowGroup], lanes: int) -> None:
        self.groups = list(groups)
        self.starts = np.concatenate([[0], np.cumsum([group.rows for group in groups], dtype=np.int64)])
        self.lanes = max(1, min(lanes, len(self.groups)))
        self._longer = int(self.starts[-1]) % self.lanes

    def spans(self, start: int, stop: int, rank: int, ranks: int) -> list[tuple[int, int]]:
        """A rank's part of the global batch of positions [start, stop): pieces [low, high) of the sequence, lane after lane.

        The ranks' parts, one after another, are the whole batch, the same for any number of ranks; all but the last have
        ceil((stop - start) / ranks) rows.
        """
        size = -(-(stop - start) // ranks)
        first, last = min(rank * size, stop - start), min((rank + 1) * size, stop - start)
        found, place = [], 0
        for lane in range(self.lanes):
            low, high = -((lane - start) // self.lanes), -((lane - stop) // self.lanes)
            begin, end = max(first - place, 0), min(last - place, high - low)
            if begin < end:
                found.append((self._first(lane) + low + begin, self._first(lane) + low + end))
            place += high - low
        return found

    def going_on(self, position: int) -> set[int]:
        """The indices of the row groups that the lanes read on in from a position of the epoch on."""
        places = [self._first(lane) - (lane - position) // self.lanes for lane in range(self.lanes)]
        return set((np.searchsorted(self.starts, places, side="right") - 1).tolist())

    def pieces(self, low: int, high: int) -> list[tuple[int, slice]]:
        """Rows [low, high) of the sequence: the index of each row group that has some, and which of its rows."""
        found, index = [], int(np.searchsorted(self.starts, low, side="right")) - 1
        while low < high:
            start, stop = int(self.starts[index]), int(self.starts[index + 1])
            found.append((index, slice(low - start, min(high, stop) - start)))
            low, index = min(high, stop), index + 1
        return found

    def _first(self, lane: int) -> int:
        """The place of a lane's first row: the first lanes are a row longer where the rows cannot be shared equally."""
        return lane * (int(self.starts[-1]) // self.lanes) + min(lane, self._longer)
