"""Picks to begin with: one type for all tables; for bounds on a shard's time the cheapest candidates at rising prices on memory."""

from collections.abc import Iterator, Sequence

import numpy as np

from dmoe.sharding.planner.search.lower_bound import first_least
from dmoe.sharding.planner.search.problem import Attempt, Open, Problem

BOUNDS, PRICES = 24, (0.0, 1e-3, 1e-2, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0)


def uniform(problem: Problem, open_: Open) -> Iterator[tuple[int, ...]]:
    """One sharding type for all tables, where they all have it."""
    groups = list(zip(open_, problem.candidates, strict=True))
    for kind in sorted({group[i].sharding_type for some, group in groups for i in some}):
        of_kind = [[i for i in some if group[i].sharding_type == kind] for some, group in groups]
        if all(of_kind):
            best = [min(some, key=lambda i, g=group: g[i].total_time) for some, (_, group) in zip(of_kind, groups, strict=True)]  # type: ignore[misc]
            yield tuple(best[kind] for kind in problem.kinds)


def ladders(problem: Problem, open_: Open) -> Iterator[list[tuple[int, ...]]]:
    # The open candidates of all kinds, one after another.
    flat = [group[i] for some, group in zip(open_, problem.candidates, strict=True) for i in some]
    longest, total, bytes_ = np.array([(one.longest, one.total_time, one.weighed_bytes) for one in flat]).T
    lengths = np.array([len(some) for some in open_])
    first = np.cumsum(lengths) - lengths
    least_longest = np.minimum.reduceat(longest, first)
    values = np.unique(np.round(longest, 9))
    bounds = values[values >= least_longest.max() - 1e-9]
    if len(bounds) > BOUNDS:
        bounds = bounds[np.linspace(0, len(bounds) - 1, BOUNDS).round().astype(int)]
    # A byte's price in milliseconds: what all tables take, over all room.
    cheapest = float(np.minimum.reduceat(total, first).sum())
    unit = cheapest / max(float(problem.room.hbm.sum()), float(problem.room.ddr.sum()) * 0.01, 1.0)
    numbers = np.concatenate([np.array(some) for some in open_])
    kinds = np.array(problem.kinds)
    for bound in bounds[::-1]:
        ladder = []
        for price in PRICES:
            cost = np.where(longest <= bound + 1e-9, total + price * unit * len(problem.kinds) * bytes_, np.inf)
            picks = numbers[first_least(cost, first)]
            ladder.append(tuple(picks[kinds].tolist()))
        yield list(dict.fromkeys(ladder))


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
