"""Places candidates on ranks: the slowest first, each shard on the least loaded rank that has room."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dmoe.sharding.planner.cost.enumerator import Candidate, Vector

EVERYWHERE, HOST = ("data_parallel", "row_wise"), ("table_row_wise", "table_column_wise", "grid_shard")


@dataclass(frozen=True)
class Room:
    """Bytes available to tables on each rank: `hbm` and `ddr` are [ranks]."""

    nodes: int
    ranks_a_node: int
    hbm: Vector
    ddr: Vector


@dataclass(frozen=True)
class Placed:
    """`ranks[t][s]` is the rank of shard s of table t; `time` is [ranks] milliseconds per step."""

    ranks: tuple[NDArray[np.int64], ...]
    time: Vector

    @property
    def score(self) -> tuple[float, float]:
        """(Time of the critical rank, mean time), rounded so that the order of summation does not matter."""
        return round(float(self.time.max()), 9), round(float(self.time.mean()), 9)


class _Ranks:
    """Time and free memory of each rank so far. Arrays are [ranks of a node, nodes], so that ties go to another node first."""

    def __init__(self, room: Room) -> None:
        self.shape = (room.ranks_a_node, room.nodes)
        self.time = np.zeros(self.shape)
        self.hbm = room.hbm.reshape(room.nodes, room.ranks_a_node).T.copy()
        self.ddr = room.ddr.reshape(room.nodes, room.ranks_a_node).T.copy()
        self.number = np.arange(room.nodes * room.ranks_a_node).reshape(room.nodes, room.ranks_a_node).T
        self._note_nodes()

    def _note_nodes(self) -> None:
        """Updates the largest time and the least room of any rank of each host, [nodes] each."""
        self.peak, self.least_hbm, self.least_ddr = self.time.max(0), self.hbm.min(0), self.ddr.min(0)

    def _spread(self, values: Vector) -> Vector:
        return values.reshape(self.shape[1], self.shape[0]).T

    def everywhere(self, one: Candidate, times: int) -> bool:
        """Adds one shard on every rank for `times` equal tables; False if that does not fit."""
        self.time += times * self._spread(one.time)
        self.hbm -= times * self._spread(one.hbm)
        self.ddr -= times * self._spread(one.ddr)
        self._note_nodes()
        return bool(self.least_hbm.min() >= 0 and self.least_ddr.min() >= 0)

    def take(self, where: tuple[int, int], one: Candidate, shard: int) -> int:
        self.time[where] += one.time[shard]
        self.hbm[where] -= one.hbm[shard]
        self.ddr[where] -= one.ddr[shard]
        node = where[1]
        self.peak[node] = max(self.peak[node], self.time[where])
        self.least_hbm[node] = min(self.least_hbm[node], self.hbm[where])
        self.least_ddr[node] = min(self.least_ddr[node], self.ddr[where])
        return int(self.number[where])

    def devices(self, one: Candidate, pinned: tuple[int, ...] | None, node: int | None = None) -> NDArray[np.int64] | None:
        """Puts each shard on the best rank, of all nodes or of `node`; None if that does not fit."""
        chosen = []
        closed: NDArray[np.bool_] | None = None
        if pinned is not None:
            closed = ~np.isin(self.number, pinned)
        if node is not None:
            closed = np.zeros(self.shape, bool) if closed is None else closed
            closed[:, np.arange(self.shape[1]) != node] = True
        for shard in range(len(one.time)):
            if closed is None:
                # Fast path: the least loaded rank usually has room.
                flat = int(self.time.argmin())
                where = flat // self.shape[1], flat % self.shape[1]
                if self.hbm[where] >= one.hbm[shard] and self.ddr[where] >= one.ddr[shard]:
                    chosen.append(self.take(where, one, shard))
                    continue
                closed = np.zeros(self.shape, bool)
            full = closed | (self.hbm < one.hbm[shard]) | (self.ddr < one.ddr[shard])
            flat = int(np.where(full, np.inf, self.time).argmin())
            where = flat // self.shape[1], flat % self.shape[1]
            if full[where]:
                return None
            chosen.append(self.take(where, one, shard))
        return np.array(chosen)

    def hosts(self, one: Candidate) -> NDArray[np.int64] | None:
        """Puts table_column_wise shards on one host, and each block of other types on all ranks of one host: the least loaded with room."""
        local, nodes = self.shape
        if one.sharding_type == "table_column_wise":
            fits = self.hbm.sum(0) >= one.hbm.sum()
            for node in np.argsort(np.where(fits, self.time.sum(0), np.inf), kind="stable")[: int(fits.sum())]:
                before = self.time.copy(), self.hbm.copy(), self.ddr.copy()
                if (found := self.devices(one, None, int(node))) is not None:
                    return found
                self.time, self.hbm, self.ddr = before
                self._note_nodes()
            return None
        time, hbm, ddr = (values.reshape(-1, local) for values in (one.time, one.hbm, one.ddr))
        # Assumes that all shards of a block are as large as the largest; only those with the last rows of a table are smaller.
        wants = zip(hbm.max(1).tolist(), ddr.max(1).tolist(), strict=True)
        chosen: list[int] = []
        # Blocks of a grid go to different hosts until all hosts have one.
        load, unused = self.peak.copy(), nodes
        for block, (want_hbm, want_ddr) in enumerate(wants):
            node = int(load.argmin())
            if self.least_hbm[node] < want_hbm or self.least_ddr[node] < want_ddr:
                full = (self.least_hbm < want_hbm) | (self.least_ddr < want_ddr)
                node = int(np.where(full, np.inf, load).argmin())
                if full[node] or load[node] == np.inf:
                    return None
            self.time[:, node] += time[block]
            self.hbm[:, node] -= hbm[block]
            self.ddr[:, node] -= ddr[block]
            self.peak[node] = self.time[:, node].max()
            self.least_hbm[node], self.least_ddr[node] = self.hbm[:, node].min(), self.ddr[:, node].min()
            chosen += self.number[:, node].tolist()
            load[node], unused = np.inf, unused - 1
            if not unused:
                load, unused = self.peak.copy(), nodes
        return np.array(chosen)


def place(chosen: Sequence[Candidate], pinned: Sequence[tuple[int, ...] | None], room: Room, by: str) -> Placed | None:
    """Places one candidate per table; None if they do not fit.

    Args:
        pinned: ranks that may hold the shards of each table; None for all.
        by: `time` or `storage`: tables with the most of it are placed first.
    """
    ranks = _Ranks(room)
    taken: list[NDArray[np.int64] | None] = [None] * len(chosen)

    def size(index: int) -> tuple[bool, float]:
        one = chosen[index]
        # Pinned tables first: they have the fewest options.
        weight = one.total_time if by == "time" else one.total_bytes
        return pinned[index] is None, -float(weight)

    flexible, everywhere = [], Counter[int]()
    for index, one in enumerate(chosen):
        if one.sharding_type in EVERYWHERE:
            everywhere[id(one)] += 1
            taken[index] = np.arange(len(one.time))
        else:
            flexible.append(index)
    kinds = {id(one): one for one in chosen}
    if not all(ranks.everywhere(kinds[kind], times) for kind, times in everywhere.items()):
        return None
    for index in sorted(flexible, key=size):
        one = chosen[index]
        found = ranks.hosts(one) if one.sharding_type in HOST else ranks.devices(one, pinned[index])
        if found is None:
            return None
        taken[index] = found
    return Placed(tuple(found for found in taken if found is not None), ranks.time.T.reshape(-1))
