"""Initial picks: one sharding type for all tables; or the cheapest candidates under a bound on shard time, at rising prices on memory."""

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
"""How many numbers of tables on every rank to try, and how many bounds on the shards of the other tables."""


def uniform(problem: Problem, open_: Open) -> Iterator[tuple[int, ...]]:
    """Picks with one sharding type for all tables, for each type that all tables have."""
    groups = list(zip(open_, problem.candidates, strict=True))
    for kind in sorted({group[i].sharding_type for some, group in groups for i in some}):
        of_kind = [[i for i in some if group[i].sharding_type == kind] for some, group in groups]
        if all(of_kind):
            best = [min(some, key=lambda i, g=group: g[i].total_time) for some, (_, group) in zip(of_kind, groups, strict=True)]  # type: ignore[misc]
            yield tuple(best[kind] for kind in problem.kinds)


class Flat:
    """The allowed candidates of all kinds in one list.

    Attributes:
        all: the candidates.
        numbers: [candidates] index of each among the candidates of its kind.
        first: [kinds] index of the first candidate of each kind.
        shards, longest, total: [candidates] number of shards, milliseconds of the slowest shard, milliseconds of all shards.
        kinds: [tables] kind of each table, as in `Problem`.
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
        """[kinds] minimum of `values` [candidates] for each kind."""
        return np.minimum.reduceat(values, self.first)

    def picked(self, cost: Vector) -> NDArray[np.int64]:
        """[tables] index of the candidate with the least cost for each table."""
        return first_least(cost, self.first)[self.kinds]

    def picks(self, places: NDArray[np.int64]) -> tuple[int, ...]:
        return tuple(self.numbers[places].tolist())


def _spread_out(values: NDArray[Any], most: int) -> NDArray[Any]:
    """At most `most` of the sorted values, evenly spaced, with the first and the last."""
    return values if len(values) <= most else values[np.linspace(0, len(values) - 1, most).round().astype(int)]


def ladders(problem: Problem, open_: Open) -> Iterator[list[tuple[int, ...]]]:
    flat = Flat(problem, open_)
    bytes_ = np.array([one.weighed_bytes for one in flat.all])
    values = np.unique(np.round(flat.longest, 9))
    bounds = _spread_out(values[values >= flat.least(flat.longest).max() - 1e-9], BOUNDS)
    # Unit of the price of a byte: total milliseconds of all tables, divided by the total room.
    cheapest = float(flat.least(flat.total).sum())
    unit = cheapest / max(float(problem.room.hbm.sum()), float(problem.room.ddr.sum()) * 0.01, 1.0)
    for bound in bounds[::-1]:
        ladder = []
        for price in PRICES:
            cost = np.where(flat.longest <= bound + 1e-9, flat.total + price * unit * len(problem.kinds) * bytes_, np.inf)
            ladder.append(flat.picks(flat.picked(cost)))
        yield list(dict.fromkeys(ladder))


def replicated(problem: Problem, open_: Open, worst: float) -> list[tuple[float, tuple[int, ...]]]:
    """Picks with more tables on every rank than is cheapest in total: a few large shards leave idle time on most ranks.

    Tables with the smallest ratio of total time on every rank to total time otherwise come first. The other tables use the cheapest
    candidate under a bound on shard time.

    Args:
        worst: current time of the critical rank.

    Returns:
        (lower bound in milliseconds for any placement, picks), the smallest bound first.
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
    # Equal tables have equal ratios.
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
    """A lower bound for any placement: the mean time, and the sum of the slowest shards that must share a rank (2, 3, ... of them)."""
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
    """Mixes picks `large` that do not fit with picks `small` that do: bisects the least number of tables that must change to `small`.

    Tables that save the most bytes per additional millisecond change first.
    """
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
