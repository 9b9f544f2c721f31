"""Picks to begin with: one type for all tables; for bounds on a shard's time the cheapest candidates at rising prices on memory."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmoe.sharding.planner.cost.enumerator import Vector
from dmoe.sharding.planner.search.lower_bound import first_least
from dmoe.sharding.planner.search.partitioner import EVERYWHERE
from dmoe.sharding.planner.search.problem import Attempt, Open, Problem

BOUNDS, PRICES = 24, (0.0, 1e-3, 1e-2, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0)
AMOUNTS = 32
"""Of tables on every rank, and of bounds on the others' shards, that are tried."""


def uniform(problem: Problem, open_: Open) -> Iterator[tuple[int, ...]]:
    """One sharding type for all tables, where they all have it."""
    groups = list(zip(open_, problem.candidates, strict=True))
    for kind in sorted({group[i].sharding_type for some, group in groups for i in some}):
        of_kind = [[i for i in some if group[i].sharding_type == kind] for some, group in groups]
        if all(of_kind):
            best = [min(some, key=lambda i, g=group: g[i].total_time) for some, (_, group) in zip(of_kind, groups, strict=True)]  # type: ignore[misc]
            yield tuple(best[kind] for kind in problem.kinds)


class Flat:
    """The open candidates of all kinds, one after another.

    Attributes:
        all: the candidates.
        numbers: [candidates] of each among its kind's candidates.
        first: [kinds] where each kind's begin.
        shards, longest, total: [candidates] how many, milliseconds of the longest one and of all.
        kinds: [tables] as the problem's.
    """

    def __init__(self, problem: Problem, open_: Open) -> None:
        self.all = [group[i] for some, group in zip(open_, problem.candidates, strict=True) for i in some]
        self.numbers = np.concatenate([np.array(some) for some in open_])
        lengths = np.array([len(some) for some in open_])
        self.first = np.cumsum(lengths) - lengths
        self.shards = np.array([len(one.time) for one in self.all])
        self.longest, self.total = np.array([(one.longest, one.total_time) for one in self.all]).T
        self.kinds = np.array(problem.kinds)

    def least(self, values: Vector) -> Vector:
        """[kinds], each one's least of [candidates]."""
        return np.minimum.reduceat(values, self.first)

    def picked(self, cost: Vector) -> NDArray[np.int64]:
        """[tables], the place of each one's candidate of least cost."""
        return first_least(cost, self.first)[self.kinds]

    def picks(self, places: NDArray[np.int64]) -> tuple[int, ...]:
        return tuple(self.numbers[places].tolist())


def _spread_out(values: NDArray[Any], most: int) -> NDArray[Any]:
    """At most so many of sorted values, the first and the last among them."""
    return values if len(values) <= most else values[np.linspace(0, len(values) - 1, most).round().astype(int)]


def ladders(problem: Problem, open_: Open) -> Iterator[list[tuple[int, ...]]]:
    flat = Flat(problem, open_)
    bytes_ = np.array([one.weighed_bytes for one in flat.all])
    values = np.unique(np.round(flat.longest, 9))
    bounds = _spread_out(values[values >= flat.least(flat.longest).max() - 1e-9], BOUNDS)
    # A byte's price in milliseconds: what all tables take, over all room.
    cheapest = float(flat.least(flat.total).sum())
    unit = cheapest / max(float(problem.room.hbm.sum()), float(problem.room.ddr.sum()) * 0.01, 1.0)
    for bound in bounds[::-1]:
        ladder = []
        for price in PRICES:
            cost = np.where(flat.longest <= bound + 1e-9, flat.total + price * unit * len(problem.kinds) * bytes_, np.inf)
            ladder.append(flat.picks(flat.picked(cost)))
        yield list(dict.fromkeys(ladder))


def replicated(problem: Problem, open_: Open, worst: float) -> list[tuple[float, tuple[int, ...]]]:
    """More tables on every rank than cost least in all: few large shards leave most ranks time that nothing else can use.

    Those first that take least there for what they take otherwise; the others take the candidate within a bound that costs least.

    Args:
        worst: the critical rank's time to be improved.

    Returns:
        milliseconds that no placement takes less than, and picks; the least first.
    """
    flat = Flat(problem, open_)
    ranks = len(problem.room.hbm)
    on_all = np.array([one.sharding_type in EVERYWHERE for one in flat.all])
    there, elsewhere = np.where(on_all, flat.total, np.inf), np.where(on_all, np.inf, flat.total)
    place_there = flat.picked(there)
    with np.errstate(invalid="ignore"):
        worth = (flat.least(there) / flat.least(elsewhere))[flat.kinds]
    order = np.argsort(worth, kind="stable")[: int(np.isfinite(flat.least(there)[flat.kinds]).sum())]
    taken = np.append(0.0, np.cumsum(flat.longest[place_there[order]]))
    possible = np.flatnonzero(taken < worst)[1:]
    # Tables that are alike are worth the same.
    whole_kinds = np.flatnonzero(np.diff(worth[order], prepend=-1, append=-1))
    found = []
    for many in np.union1d(_spread_out(possible, AMOUNTS), _spread_out(np.intersect1d(possible, whole_kinds), AMOUNTS)).tolist():
        rest = np.setdiff1d(np.arange(len(flat.kinds)), order[:many])
        least = flat.least(np.where(on_all, np.inf, flat.longest))[flat.kinds[rest]].max(initial=0.0)
        left = worst - taken[many]
        bounds = np.unique(np.round(flat.longest[~on_all & (flat.longest >= least - 1e-9) & (flat.longest < left)], 9))
        for bound in _spread_out(bounds, AMOUNTS) if len(rest) else (0.0,):
            places = flat.picked(np.where(flat.longest <= bound + 1e-9, elsewhere, np.inf))
            places[order[:many]] = place_there[order[:many]]
            least_time = taken[many] + _least_makespan(flat, places[rest], ranks)
            if least_time < worst:
                found.append((float(least_time), flat.picks(places)))
    return sorted(dict.fromkeys(found))


def _least_makespan(flat: Flat, places: NDArray[np.int64], ranks: int) -> float:
    """What no placement takes less than: the mean, and of the longest shards two, three, ... that have to share a rank."""
    longest = flat.longest[places]
    order = np.argsort(-longest, kind="stable")
    up_to = np.cumsum(flat.shards[places][order])
    found = [float(flat.total[places].sum()) / ranks]
    for many in range(4):
        at = int(np.searchsorted(up_to, many * ranks, "right"))
        if at < len(order):
            found.append((many + 1) * float(longest[order[at]]))
    return max(found)


def part_way(problem: Problem, large: Sequence[int], small: Sequence[int], attempt: Attempt) -> None:
    """Between picks that do not fit and picks that do: as few of the second as do, those first that save most bytes a millisecond."""
    gains = []
    for table, (one, other) in enumerate(zip(problem.chosen(large), problem.chosen(small), strict=True)):
        if one is not other:
            gains.append(((one.weighed_bytes - other.weighed_bytes) / max(other.total_time - one.total_time, 1e-9), table))
    order = [table for _, table in sorted(gains, key=lambda pair: (-pair[0], pair[1]))]
    low, high = 0, len(order)
    while high - low > 1:
        middle = (low + high) // 2
        if attempt(with_picks(large, {table: small[table] for table in order[:middle]})) is not None:
            high = middle
        else:
            low = middle


def with_picks(picks: Sequence[int], changed: dict[int, int]) -> tuple[int, ...]:
    return tuple(changed.get(table, pick) for table, pick in enumerate(picks))
