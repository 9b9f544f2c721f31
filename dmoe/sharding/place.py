"""Placing chosen candidates on ranks: the longest first, each shard on the rank that is least loaded and has room."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dmoe.sharding.candidates import Candidate, Vector

EVERYWHERE, HOST = ("data_parallel", "row_wise"), ("table_row_wise", "table_column_wise", "grid_shard")


@dataclass(frozen=True)
class Room:
    """Bytes that tables may take on every rank: [ranks] by rank."""

    nodes: int
    ranks_a_node: int
    hbm: Vector
    ddr: Vector


@dataclass(frozen=True)
class Placed:
    """`ranks[t][s]` holds shard s of table t; `time` is each rank's milliseconds a step."""

    ranks: tuple[NDArray[np.int64], ...]
    time: Vector

    @property
    def score(self) -> tuple[float, float]:
        """Critical rank's time first, the mean then. Rounded, so that sums in another order do not decide."""
        return round(float(self.time.max()), 9), round(float(self.time.mean()), 9)


class _Ranks:
    """What is taken on every rank so far. Arrays are [ranks of a node, nodes], so that ties go to another node first."""

    def __init__(self, room: Room) -> None:
        self.shape = (room.ranks_a_node, room.nodes)
        self.time = np.zeros(self.shape)
        self.hbm = room.hbm.reshape(room.nodes, room.ranks_a_node).T.copy()
        self.ddr = room.ddr.reshape(room.nodes, room.ranks_a_node).T.copy()
        self.number = np.arange(room.nodes * room.ranks_a_node).reshape(room.nodes, room.ranks_a_node).T

    def _spread(self, values: Vector) -> Vector:
        return values.reshape(self.shape[1], self.shape[0]).T

    def everywhere(self, one: Candidate) -> NDArray[np.int64] | None:
        self.time += self._spread(one.time)
        self.hbm -= self._spread(one.hbm)
        self.ddr -= self._spread(one.ddr)
        return np.arange(len(one.time)) if self.hbm.min() >= 0 and self.ddr.min() >= 0 else None

    def take(self, where: tuple[int, int], one: Candidate, shard: int) -> int:
        self.time[where] += one.time[shard]
        self.hbm[where] -= one.hbm[shard]
        self.ddr[where] -= one.ddr[shard]
        return int(self.number[where])

    def devices(self, one: Candidate, pinned: tuple[int, ...] | None, node: int | None = None) -> NDArray[np.int64] | None:
        """Each shard on a rank of its own choice, of all or of one node."""
        chosen = []
        closed = np.zeros(self.shape, bool)
        if pinned is not None:
            closed = ~np.isin(self.number, pinned)
        if node is not None:
            closed[:, np.arange(self.shape[1]) != node] = True
        for shard in range(len(one.time)):
            full = closed | (self.hbm < one.hbm[shard]) | (self.ddr < one.ddr[shard])
            flat = int(np.where(full, np.inf, self.time).argmin())
            where = flat // self.shape[1], flat % self.shape[1]
            if full[where]:
                return None
            chosen.append(self.take(where, one, shard))
        return np.array(chosen)

    def hosts(self, one: Candidate) -> NDArray[np.int64] | None:
        """Whole hosts: as many as the shards fill, the least loaded ones that have room."""
        local, nodes = self.shape
        if one.sharding_type == "table_column_wise":
            fits = self.hbm.sum(0) >= one.hbm.sum()
            for node in np.argsort(np.where(fits, self.time.sum(0), np.inf), kind="stable")[: int(fits.sum())]:
                before = self.time.copy(), self.hbm.copy(), self.ddr.copy()
                if (found := self.devices(one, None, int(node))) is not None:
                    return found
                self.time, self.hbm, self.ddr = before
            return None
        blocks = len(one.time) // local
        chosen: list[int] = []
        used = np.zeros(nodes, bool)
        for block in range(blocks):
            part = slice(block * local, (block + 1) * local)
            full = (self.hbm < one.hbm[part, None]).any(0) | (self.ddr < one.ddr[part, None]).any(0)
            load = (self.time + one.time[part, None]).max(0)
            # The blocks of a grid lie on different hosts while there are any.
            load = np.where(full | (used & (not used.all())), np.inf, load)
            node = int(load.argmin())
            if not np.isfinite(load[node]):
                return None
            used[node] = True
            chosen += [self.take((row, node), one, block * local + row) for row in range(local)]
        return np.array(chosen)


def place(chosen: Sequence[Candidate], pinned: Sequence[tuple[int, ...] | None], room: Room, by: str) -> Placed | None:
    """Ranks for one candidate a table, or None where they do not fit.

    Args:
        pinned: ranks that may hold a table's shards; None for all.
        by: `time` or `storage`, the larger tables of which are placed first.
    """
    ranks = _Ranks(room)
    taken: list[NDArray[np.int64] | None] = [None] * len(chosen)

    def size(index: int) -> tuple[bool, float]:
        one = chosen[index]
        # Pinned tables first: they have the least choice.
        weight = one.time.sum() if by == "time" else one.hbm.sum() + one.ddr.sum()
        return pinned[index] is None, -float(weight)

    flexible = []
    for index, one in enumerate(chosen):
        if one.sharding_type in EVERYWHERE:
            if (found := ranks.everywhere(one)) is None:
                return None
            taken[index] = found
        else:
            flexible.append(index)
    for index in sorted(flexible, key=size):
        one = chosen[index]
        found = ranks.hosts(one) if one.sharding_type in HOST else ranks.devices(one, pinned[index])
        if found is None:
            return None
        taken[index] = found
    return Placed(tuple(found for found in taken if found is not None), ranks.time.T.reshape(-1))
