"""Local search from a plan: move a shard away from the critical rank, exchange two shards, or shard one of its tables differently.

A step needs a few operations on arrays of ranks or shards; all other tables stay in place. A step is accepted if all ranks that it changes
stay below the critical rank's time. Each step thus reduces the number of ranks that need this time, until there is none.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmoe.sharding.planner.cost.enumerator import Candidate, Vector
from dmoe.sharding.planner.search.partitioner import EVERYWHERE, HOST, Placed, Room

LESS = 1e-9
"""Minimum difference, in milliseconds, for a time to count as smaller."""
Ranks = NDArray[np.int64]
NONE = np.zeros(0, np.int64)


class State:
    """The current plan: time and free memory of each rank, and the ranks of each table's shards.

    Args:
        chosen, ranks: the candidate of each table, and the ranks of its shards.
        pinned: ranks that may hold the shards of each table; None for all.
    """

    def __init__(self, chosen: Sequence[Candidate], ranks: Sequence[Ranks], pinned: Sequence[tuple[int, ...] | None], room: Room) -> None:
        self.chosen, self.ranks, self.pinned, self.room = list(chosen), list(ranks), pinned, room
        self.time = np.zeros(len(room.hbm))
        self.free = np.stack([room.hbm, room.ddr])
        for one, where in zip(self.chosen, self.ranks, strict=True):
            self._add(one, where, 1)

    def _add(self, one: Candidate, where: Ranks, sign: int) -> None:
        np.add.at(self.time, where, sign * one.time)
        np.subtract.at(self.free[0], where, sign * one.hbm)
        np.subtract.at(self.free[1], where, sign * one.ddr)

    @property
    def worst(self) -> float:
        return float(self.time.max())

    def placed(self) -> Placed:
        return Placed(tuple(self.ranks), self.time.copy())

    def replace(self, table: int, one: Candidate, where: Ranks) -> None:
        """Changes the candidate or the ranks of a table."""
        self._add(self.chosen[table], self.ranks[table], -1)
        self.chosen[table], self.ranks[table] = one, where
        self._add(one, where, 1)

    def find(self, table: int, one: Candidate) -> tuple[Ranks, float] | None:
        """Ranks for a table with candidate `one`, all other tables unchanged, and the critical rank's time; None if it does not fit."""
        now, there = self.chosen[table], self.ranks[table]
        time, free = self.time.copy(), self.free.copy()
        np.subtract.at(time, there, now.time)
        np.add.at(free[0], there, now.hbm)
        np.add.at(free[1], there, now.ddr)
        if one.sharding_type in EVERYWHERE:
            if (free[0] < one.hbm).any() or (free[1] < one.ddr).any():
                return None
            return np.arange(len(time)), float((time + one.time).max())
        where = self._on_hosts(one, time, free) if one.sharding_type in HOST else _least_loaded(one, time, free, self._open(table))
        return None if where is None else (where, float(time.max()))

    def _open(self, table: int) -> NDArray[np.bool_] | None:
        pinned = self.pinned[table]
        return None if pinned is None else np.isin(np.arange(len(self.time)), pinned)

    def _on_hosts(self, one: Candidate, time: Vector, free: Vector) -> Ranks | None:
        local = self.room.ranks_a_node
        # table_column_wise puts all shards on one host; the other types here put each block on one host.
        together = one.sharding_type == "table_column_wise"
        found: list[Ranks] = []
        used = np.zeros(self.room.nodes, bool)
        blocks = [slice(0, len(one.time))] if together else [slice(at, at + local) for at in range(0, len(one.time), local)]
        for block in blocks:
            load = np.sort(time.reshape(-1, local), 1)[:, 0] if together else time.reshape(-1, local).max(1)
            ranks = None
            for node in np.argsort(np.where(used, np.inf, load), kind="stable")[:4]:
                first = int(node) * local
                some = slice(first, first + local)
                if together:
                    inside = np.zeros(len(time), bool)
                    inside[some] = True
                    ranks = _least_loaded(one, time, free, inside)
                elif (free[0, some] >= one.hbm[block]).all() and (free[1, some] >= one.ddr[block]).all():
                    ranks = np.arange(first, first + local)
                    time[some] += one.time[block]
                    free[0, some] -= one.hbm[block]
                    free[1, some] -= one.ddr[block]
                if ranks is not None:
                    used[node] = not together
                    break
            if ranks is None:
                return None
            if used.all():
                used[:] = False
            found.append(ranks)
        return np.concatenate(found)


def _least_loaded(one: Candidate, time: Vector, free: Vector, inside: NDArray[np.bool_] | None) -> Ranks | None:
    """Puts each shard on the least loaded rank with room, updating `time` and `free`; None, without an update, if a shard fits nowhere."""
    where = []
    before = time.copy(), free.copy()
    for took, hbm, ddr in zip(one.time.tolist(), one.hbm.tolist(), one.ddr.tolist(), strict=True):
        fits = (free[0] >= hbm) & (free[1] >= ddr)
        if inside is not None:
            fits &= inside
        rank = int(np.where(fits, time, np.inf).argmin())
        if not fits[rank]:
            time[:], free[:] = before
            return None
        time[rank] += took
        free[0, rank] -= hbm
        free[1, rank] -= ddr
        where.append(rank)
    return np.array(where)


class _Shards:
    """Arrays of all shards that may be on any rank: table, index in the table, rank, [time, hbm, ddr]."""

    def __init__(self, state: State) -> None:
        self.state = state
        some = [self._of(table) for table in range(len(state.chosen))]
        self.table, self.number, self.rank, self.cost = (np.concatenate(parts) for parts in zip(*some, strict=True))

    def _of(self, table: int) -> tuple[Ranks, Ranks, Ranks, Vector]:
        state = self.state
        one, where = state.chosen[table], state.ranks[table]
        if one.sharding_type in EVERYWHERE or one.sharding_type in HOST or state.pinned[table] is not None:
            return NONE, NONE, NONE, np.zeros((0, 3))
        return np.full(len(where), table), np.arange(len(where)), where, np.stack([one.time, one.hbm, one.ddr], 1)

    def resharded(self, table: int) -> None:
        """Updates the arrays after a table was sharded differently."""
        first, end = np.searchsorted(self.table, (table, table + 1))

        def changed(all_: NDArray[Any], new: NDArray[Any]) -> NDArray[Any]:
            return np.concatenate([all_[:first], new, all_[end:]])

        table_, number, rank, cost = self._of(table)
        self.cost = changed(self.cost, cost)
        self.number, self.rank, self.table = changed(self.number, number), changed(self.rank, rank), changed(self.table, table_)


def improve(state: State, others: Sequence[Sequence[Candidate]], enough: float, steps: int) -> None:
    """Takes improving steps until there is none, or the critical rank's time is at most `enough`.

    Args:
        others: allowed candidates of each table.
        steps: maximum number of steps.
    """
    shards = _Shards(state)
    for _ in range(steps):
        critical = int(state.time.argmax())
        if state.worst <= enough:
            return
        if _exchange(state, shards, critical):
            continue
        table = _reshard(state, others, critical)
        if table is None:
            return
        shards.resharded(table)


def _exchange(state: State, shards: _Shards, critical: int) -> bool:
    """Moves a shard of the critical rank to another rank, or exchanges it for a faster one: the step with the smallest maximum of both."""
    mine = np.flatnonzero(shards.rank == critical)
    worst, time, free = state.worst, state.time, state.free
    best: tuple[float, int, int, int] | None = None
    theirs = shards.rank != critical
    seen: set[tuple[float, ...]] = set()
    for shard in mine:
        cost = shards.cost[shard]
        if cost[0] <= LESS or tuple(cost) in seen:
            continue
        seen.add(tuple(cost))
        after = time + cost[0]
        after[(free[0] < cost[1]) | (free[1] < cost[2])] = np.inf
        after[critical] = np.inf
        rank = int(after.argmin())
        candidates = [(max(float(after[rank]), worst - float(cost[0])), int(shard), -1, rank)]
        if len(shards.rank):
            less = cost[0] - shards.cost[:, 0]
            to = np.maximum(time[shards.rank] + less, worst - less)
            # Differences in time and memory: the other rank gains what this rank loses.
            more = cost[1:] - shards.cost[:, 1:]
            fits = (more <= free[:, shards.rank].T).all(1) & (free[:, critical] >= -more).all(1) & theirs & (less > LESS)
            other = int(np.where(fits, to, np.inf).argmin())
            if fits[other]:
                candidates.append((float(to[other]), int(shard), other, int(shards.rank[other])))
        best = min([*candidates, best] if best is not None else candidates)
    if best is None or best[0] >= worst - LESS:
        return False
    _, given, other, rank = best
    for one, to in ((given, rank), (other, critical)):
        if one >= 0:
            table = int(shards.table[one])
            where = state.ranks[table].copy()
            where[shards.number[one]] = to
            state.replace(table, state.chosen[table], where)
            shards.rank[one] = to
    return True


def _reshard(state: State, others: Sequence[Sequence[Candidate]], critical: int) -> int | None:
    """Changes the candidate of a table of the critical rank, all other tables unchanged; returns the table, None if no change helps."""
    worst = state.worst
    load = []
    for table, (one, where) in enumerate(zip(state.chosen, state.ranks, strict=True)):
        if one.sharding_type in EVERYWHERE or critical in where:
            load.append((-float(one.time[where == critical].sum()), table))
    for _, table in sorted(load):
        now = state.chosen[table]
        for one in sorted(others[table], key=lambda one: one.total_time):
            if one is now or one.longest >= worst:
                continue
            found = state.find(table, one)
            if found is None:
                continue
            where, _ = found
            # Another rank may be as slow as the critical one: compare only the ranks that this step changes.
            trial = state.time.copy()
            np.subtract.at(trial, state.ranks[table], now.time)
            np.add.at(trial, where, one.time)
            touched = np.union1d(where, [critical])
            if trial[touched].max() < worst - LESS:
                state.replace(table, one, where)
                return table
    return None
