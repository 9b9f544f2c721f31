"""A lower bound on the critical rank's time of all plans for a problem.

A time M is refuted if no placement of the shards on the ranks stays within M. Let f map the share of M that a shard takes to a number, so
that for shards that fit on one rank the sum of f is at most 1 (a dual feasible function, Lueker 1983; the identity is one: the total work
is spread evenly). Then every plan within M has

    sum over tables of min over their candidates within M of [sum over shards f(time / M) + price x bytes]  <=  ranks + price x room

for any prices of device and host memory, 0 or more (Lagrange). If this does not hold for some f and some prices, no plan has a time of M
or less: M is a lower bound. Subgradient steps adapt the prices, starting with those that refuted the last M.

A table on every rank (data_parallel, row_wise) takes the same time on each rank; the other shards share the rest. If there are few
candidates, the plans are divided by the total time of such tables, into ranges from D to E. Each range is refuted separately: with a price
on the time of these tables, at most E, and with f applied to the other shards' share of M - D.
"""

from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from dmoe.sharding.planner.cost.enumerator import Candidate, Vector
from dmoe.sharding.planner.search.partitioner import EVERYWHERE, Room

STEPS = 24
"""Maximum number of subgradient steps for one function and time."""
PARTS = 8
"""Number of dual feasible functions; they distinguish shards that take more than 1/2, 1/3, ... of M."""
FEW = 2000
"""Maximum number of candidates for which plans are divided by the total time of tables on every rank, into `FINEST` ranges."""
FINEST = 32
SAFE = 1e-9
"""Relative tolerance, so that rounding errors of sums do not refute a possible time."""


def lower_bound(candidates: tuple[tuple[Candidate, ...], ...], kinds: tuple[int, ...], room: Room, above: float, gap: float = 0.0) -> float:
    """Lower bound on the critical rank's time, in milliseconds.

    Args:
        candidates, kinds: as in `Problem`.
        above: the critical rank's time of a known plan; the bound does not exceed it.
        gap: a bound within this share of `above` is good enough.
    """
    relaxed = _Relaxed(candidates, kinds, room)
    low, high = 0.0, above
    # Bisection, although refutation is only nearly monotone: each refuted time is a valid bound.
    while high - low > max(0.001, gap / 4) * above:
        middle = (low + high) / 2
        if relaxed.refutes(middle):
            low = middle
        else:
            high = middle
    # The best bound is most often just below a multiple of a shard's time.
    for time in relaxed.times_between(low, above):
        if relaxed.refutes(time):
            low = max(low, time)
    return low


class _Relaxed:
    def __init__(self, candidates: tuple[tuple[Candidate, ...], ...], kinds: tuple[int, ...], room: Room) -> None:
        self.ranks = len(room.hbm)
        self.prices: dict[tuple[bool, int], Vector] = {}
        whole = np.array([max(room.hbm.clip(0).sum(), 1.0), max(room.ddr.clip(0).sum(), 1.0)])
        tables = Counter(kinds)
        rows: list[tuple[int, dict[float, int], Vector, float]] = []
        first = []
        for kind, group in enumerate(candidates):
            first.append(len(rows))
            rows += [(tables[kind], _counts(one), np.array([one.hbm.sum(), one.ddr.sum()]) / whole, one.longest) for one in group]
        width = max(len(counts) for _, counts, _, _ in rows)
        self.first = np.array(first)
        self.tables = np.array([tables[kind] for kind in range(len(candidates))], np.float64)
        self.times, self.counts = np.zeros((len(rows), width)), np.zeros((len(rows), width))
        for number, (_, counts, _, _) in enumerate(rows):
            self.times[number, : len(counts)] = list(counts)
            self.counts[number, : len(counts)] = list(counts.values())
        self.bytes = np.array([one for _, _, one, _ in rows])
        self.longest = np.array([one for _, _, _, one in rows])
        self.everywhere = np.array([one.time.min() if one.sharding_type in EVERYWHERE else 0.0 for group in candidates for one in group])

    def times_between(self, low: float, high: float) -> list[float]:
        """Times just below a multiple of a shard's time, where one shard fewer fits on a rank."""
        distinct = np.unique(self.times[self.times > 0])
        found = {low}
        for many in range(1, PARTS + 1):
            found |= set((distinct * many * (1 - 1e-7)).tolist())
        inside = sorted(time for time in found if low < time <= high)
        return inside[:: max(1, len(inside) // 12)] + inside[-1:]

    def refutes(self, limit: float) -> bool:
        """True if it is proved that no plan has a critical rank's time of `limit` milliseconds or less."""
        allowed = self.longest <= limit
        if not np.logical_or.reduceat(allowed, self.first).all():
            return True
        shares = np.minimum(self.times / limit * (1 - SAFE), 1.0)
        for number, function in enumerate(_dual_feasible()):
            work = np.where(allowed, (function(shares) * self.counts).sum(1) / self.ranks, np.inf)
            if self._priced((False, number), work, self.bytes):
                return True
        return bool(self.everywhere.any()) and len(self.longest) <= FEW and self._refutes_between(limit, 0.0, limit)

    def _refutes_between(self, limit: float, least: float, most: float) -> bool:
        """True if no plan within `limit` has tables on every rank with a total time between `least` and `most` milliseconds."""
        left, on_all = limit - least, self.everywhere > 0
        allowed = np.where(on_all, self.everywhere <= most, self.longest <= left)
        if not np.logical_or.reduceat(allowed, self.first).all():
            return True
        shares = np.minimum(self.times / left * (1 - SAFE), 1.0)
        uses = np.column_stack([self.bytes, self.everywhere / most * (1 - SAFE)])
        for number, function in enumerate(_dual_feasible()):
            work = np.where(on_all, 0.0, (function(shares) * self.counts).sum(1) / self.ranks)
            if self._priced((True, number), np.where(allowed, work, np.inf), uses):
                return True
        middle = (least + most) / 2
        halves = ((least, middle), (middle, most)) if (most - least) * FINEST > limit else ()
        return bool(halves) and all(self._refutes_between(limit, *half) for half in halves)

    def _priced(self, key: tuple[bool, int], work: Vector, uses: Vector) -> bool:
        """True if some prices violate the inequality; searches them with Polyak's subgradient steps.

        Args:
            key: cache key for the prices of the last refutation.
            uses: [candidates, prices] share of each resource that a candidate uses.
        """
        price = self.prices.get(key, self.prices.get((key[0], 0), np.zeros(uses.shape[1])))
        best = -np.inf
        for step in range(STEPS):
            cost = work + uses @ price
            least = np.minimum.reduceat(cost, self.first)
            value = float(self.tables @ least) - float(price.sum())
            if value > 1 + SAFE:
                self.prices[key] = price
                return True
            best = max(best, value)
            if step >= 6 and best < 0.9:
                return False
            picked = first_least(cost, self.first)
            slope = self.tables @ uses[picked] - 1.0
            slope = np.where((price <= 0) & (slope < 0), 0.0, slope)
            size = float(slope @ slope)
            if size < 1e-18:
                return False
            price = np.maximum(0.0, price + (1 + 1e-6 - value) / size * slope)
        return False


def first_least(cost: Vector, first: NDArray[np.int64]) -> NDArray[np.int64]:
    """[kinds] index of the candidate with the least cost, the first one if equal; `first`: index of each kind's first candidate."""
    lengths = np.diff([*first, len(cost)])
    equal = np.flatnonzero(cost <= np.repeat(np.minimum.reduceat(cost, first), lengths))
    kinds = np.repeat(np.arange(len(first)), lengths)[equal]
    return equal[np.unique(kinds, return_index=True)[1]]


def lacks_room(candidates: tuple[tuple[Candidate, ...], ...], kinds: tuple[int, ...], room: Room) -> bool:
    """True if the smallest candidates of all tables exceed device memory, host memory, or both together."""
    tables = Counter(kinds)
    sizes = [np.array([(one.hbm.sum(), one.ddr.sum()) for one in group]) for group in candidates]
    least = sum(tables[kind] * np.append(some.min(0), some.sum(1).min()) for kind, some in enumerate(sizes))
    there = np.array([room.hbm.clip(0).sum(), room.ddr.clip(0).sum()])
    return bool((least > np.append(there, there.sum()) * (1 + SAFE)).any())


def _counts(one: Candidate) -> dict[float, int]:
    return {float(time): int(count) for time, count in zip(*np.unique(one.time, return_counts=True), strict=True)}


def _dual_feasible() -> Iterator[Callable[[Vector], Vector]]:
    yield lambda shares: shares
    for parts in range(1, PARTS + 1):
        # At most `parts` shards above 1 / (parts + 1) of the time fit on a rank (Fekete and Schepers 2001, without exact multiples).
        yield lambda shares, parts=parts: np.floor(shares * (parts + 1)) / parts  # type: ignore[misc]
