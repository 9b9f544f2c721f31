"""The order of the rows of an epoch, and each rank's part of it. The order depends on seed and epoch, not on the number of ranks.

The row groups, in the epoch's random order, form one sequence of rows. It is cut into L lanes of equal length (up to one row), and the
lanes take turns: position p of the epoch is row p // L of lane p % L. A batch therefore mixes rows of L row groups. The part of a rank in
each batch comes from neighbouring lanes, so ranks decode few row groups in common: if R ranks divide L, and L divides the batch, each rank
decodes about 1 / R of the row groups.

Shapes: G row groups, L lanes.
"""

import hashlib
from collections.abc import Sequence

import numpy as np

from dmoe.data.dataset.files import RowGroup
from dmoe.data.dataset.manifest import Shard
from dmoe.json_text import format_json


def order_name(shards: Sequence[Shard], shuffle: str = "none", lanes: int = 1, seed: int | None = None) -> str:
    """A name of the order of rows. It is equal only for the same shards, shuffle and seed. The default is the order of the files.

    Args:
        shuffle: as in Reader.
        lanes: number of row groups that take turns.
        seed: None if the order is not random.
    """
    files = [(shard.path, shard.rows, shard.sha256) for shard in shards]
    turns = ["turns"] if lanes > 1 else []
    return hashlib.sha256(format_json([files, shuffle, lanes, seed, *turns]).encode()).hexdigest()[:32]


class EpochOrder:
    """The order of the rows of one epoch.

    Args:
        groups: the row groups of the split in the order of the epoch.
        lanes: number of row groups that take turns, at most the number of row groups.

    Attributes:
        starts: [G + 1] position in the sequence of each row group's first row; at the end the number of all rows.
    """

    def __init__(self, groups: Sequence[RowGroup], lanes: int) -> None:
        self.groups = list(groups)
        self.starts = np.concatenate([[0], np.cumsum([group.rows for group in groups], dtype=np.int64)])
        self.lanes = max(1, min(lanes, len(self.groups)))
        self._longer = int(self.starts[-1]) % self.lanes

    def spans(self, start: int, stop: int, rank: int, ranks: int) -> list[tuple[int, int]]:
        """A rank's part of the global batch of the positions [start, stop), as ranges [low, high) of the sequence, lane by lane.

        The parts of the ranks in order are the whole batch, which is the same for any number of ranks. All parts except the last have
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
        """The indices of the row groups in which the lanes stand at a position of the epoch."""
        places = [self._first(lane) - (lane - position) // self.lanes for lane in range(self.lanes)]
        return set((np.searchsorted(self.starts, places, side="right") - 1).tolist())

    def pieces(self, low: int, high: int) -> list[tuple[int, slice]]:
        """The row groups that hold the rows [low, high) of the sequence: the index of each, and its rows as a slice."""
        found, index = [], int(np.searchsorted(self.starts, low, side="right")) - 1
        while low < high:
            start, stop = int(self.starts[index]), int(self.starts[index + 1])
            found.append((index, slice(low - start, min(high, stop) - start)))
            low, index = min(high, stop), index + 1
        return found

    def _first(self, lane: int) -> int:
        """The position of a lane's first row. If the rows cannot be divided equally, the first lanes are one row longer."""
        return lane * (int(self.starts[-1]) // self.lanes) + min(lane, self._longer)
