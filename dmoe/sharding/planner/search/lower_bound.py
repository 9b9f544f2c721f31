"""A critical rank's time that no plan of a problem's candidates can be under.

A time M is refuted where the shards cannot lie on the ranks within it. Let f map a shard's share of M to a share of a rank so that shards
that fit a rank together have images that sum to 1 at most (a dual feasible function, Lueker 1983; the identity is one: all work, spread
evenly). Then every plan within M has

    sum over tables of min over their candidates within M of [sum over shards f(time / M) + price x bytes]  <=  ranks + price x room

for any prices of the memories, 0 or more (Lagrange). Where it does not hold for one f and one price, no plan is as fast as M, nor faster:
M is a lower bound. Prices are raised from those of the last M that was refuted by subgradient steps.

A table that lies on every rank (data_parallel, row_wise) takes the same time on each; the other shards share what is left. So where there
are few candidates, plans are told apart by how long such tables take in all, from D to E. Each part is refuted by itself: with a price on
their time, of which there is E, and with f of the other shards' share of M - D.
"""

from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from dmoe.sharding.planner.cost.enumerator import Candidate, Vector
from dmoe.sharding.planner.search.partitioner import EVERYWHERE, Room

STEPS = 24
"""Of the prices, for one function and time."""
PARTS = 8
"""Dual feasible functions that are tried: those that tell shards of more than a 2nd, 3rd, ... part of M apart."""
FEW = 2000
"""Candidates of all kinds of tables up to which plans are told apart by the time of tables that lie everywhere, in `FINEST` parts."""
FINEST = 32
SAFE = 1e-9
"""Relative; sums in another order must not refute what is possible."""


def lower_bound(candidates: tuple[tuple[Candidate, ...], ...], kinds: tuple[int, ...], room: Room, above: float, gap: float = 0.0) -> float:
    """Milliseconds that the critical rank takes at least.

    Args:
        candidates, kinds: as of a `Problem`.
        above: the critical rank's time of a plan that is known; the bound is not over it.
        gap: a bound within this share of `above` is good enough.
    """
    relaxed = _Relaxed(candidates, kinds, room)
    low, high = 0.0, above
    # Whether a time is refuted is nearly monotone: each one that is refuted is a bound whatever the others say.
    while high - low > max(0.001, gap / 4) * above:
        middle = (low + high) / 2
        if relaxed.refutes(middle):
            low = middle
        else:
            high = middle
    # What shards are as long as decides most often: just below them.
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
        """Just below a whole part of a rank's time that shards take: where one fewer fits."""
        distinct = np.unique(self.times[self.times > 0])
        found = {low}
        for many in range(1, PARTS + 1):
            found |= set((distinct * many * (1 - 1e-7)).tolist())
        inside = sorted(time for time in found if low < time <= high)
        return inside[:: max(1, len(inside) // 12)] + inside[-1:]

    def refutes(self, limit: float) -> bool:
        """Whether no plan's critical rank takes `limit` milliseconds or less."""
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
        """Whether no plan within `limit` has tables on every rank that take from `least` to `most` milliseconds of it."""
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
        """Whether all ranks' shares are over 1 for some prices; Polyak's steps towards that.

        Args:
            key: under which the prices are kept that refuted last.
            uses: [candidates, prices], shares of what there is.
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
    """The first place of the least cost of each kind; `first` is where each kind's candidates begin."""
    lengths = np.diff([*first, len(cost)])
    equal = np.flatnonzero(cost <= np.repeat(np.minimum.reduceat(cost, first), lengths))
    kinds = np.repeat(np.arange(len(first)), lengths)[equal]
    return equal[np.unique(kinds, return_index=True)[1]]


def lacks_room(candidates: tuple[tuple[Candidate, ...], ...], kinds: tuple[int, ...], room: Room) -> bool:
    """Whether the smallest candidates of all tables are larger than a memory, or than both together."""
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
        # Shards over a (parts + 1)-th of a rank's time: `parts` of them fit a rank. Fekete and Schepers 2001, without its exact multiples.
        yield lambda shares, parts=parts: np.floor(shares * (parts + 1)) / parts  # type: ignore[misc]
