"""Choosing a candidate for every table so that the slowest rank is as fast as possible.

Makespan by its dual (Hochbaum and Shmoys 1987): for a bound on a shard's time, every table takes the candidate within it that costs least
in all, with a price on memory where memory binds; what is left is placing. A price moves all tables that are alike at once, so between two
prices only some of them are moved. The best of these plans then goes downhill: the tables of the critical rank try their other candidates,
alone and with all that are like them. Nothing depends on a clock, so a plan is a function of its inputs. It is a heuristic: no plan is
known to be the best.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from dmoe.sharding.planner.enumerator import Candidate
from dmoe.sharding.planner.partitioner import HOST, Placed, Room, place

BOUNDS, PRICES = 24, (0.0, 1e-3, 1e-2, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0)
TRIES = 500
"""Changes that one descent may try; placing one takes a few milliseconds for a hundred tables on a thousand ranks."""


@dataclass(frozen=True)
class Problem:
    """`kinds[t]` is the list of candidates of table t, which tables that are alike share."""

    candidates: tuple[tuple[Candidate, ...], ...]
    kinds: tuple[int, ...]
    pinned: tuple[tuple[int, ...] | None, ...]
    room: Room

    def chosen(self, picks: Sequence[int]) -> list[Candidate]:
        return [self.candidates[kind][pick] for kind, pick in zip(self.kinds, picks, strict=True)]

    def place(self, picks: Sequence[int]) -> Placed | None:
        """The better of the two orders."""
        chosen = self.chosen(picks)
        found = [place(chosen, self.pinned, self.room, by) for by in ("time", "storage")]
        return min((one for one in found if one is not None), key=lambda one: one.score, default=None)


@dataclass(frozen=True)
class Solution:
    """`picks[t]` is the index of table t's candidate; `placements` how many plans were tried."""

    picks: tuple[int, ...]
    placed: Placed
    placements: int


def search(problem: Problem) -> Solution | None:
    """The best plan found, or None where none of those tried fits.

    Searched among all candidates, and once more among those that do not fill whole hosts: a descent that starts with fewer choices can end
    lower, and the better of both is kept. A config that leaves out other types can still end lower than one that allows all.
    """
    tried: dict[tuple[int, ...], Placed | None] = {}
    best: Solution | None = None
    for open_ in _choices(problem):
        found = _search_among(problem, open_, tried)
        if found is not None and (best is None or found.placed.score < best.placed.score):
            best = found
    return None if best is None else Solution(best.picks, best.placed, len(tried))


Open = tuple[tuple[int, ...], ...]
"""For each kind of table the candidates that may be picked."""
Attempt = Callable[[tuple[int, ...]], Placed | None]


def _choices(problem: Problem) -> list[Open]:
    every = tuple(tuple(range(len(group))) for group in problem.candidates)
    single = tuple(
        tuple(i for i in some if group[i].sharding_type not in HOST) for some, group in zip(every, problem.candidates, strict=True)
    )
    return [every, single] if all(single) and single != every else [every]


def _search_among(problem: Problem, open_: Open, tried: dict[tuple[int, ...], Placed | None]) -> Solution | None:
    best: Solution | None = None

    def attempt(picks: tuple[int, ...]) -> Placed | None:
        nonlocal best
        if picks not in tried:
            tried[picks] = problem.place(picks)
        placed = tried[picks]
        if placed is not None and (best is None or placed.score < best.placed.score):
            best = Solution(picks, placed, 0)
        return placed

    for picks in _uniform(problem, open_):
        attempt(picks)
    for ladder in _ladders(problem, open_):
        # The lowest price on memory at which the plan fits; a higher one only makes it slower.
        for rung, picks in enumerate(ladder):
            if attempt(picks) is not None:
                if rung:
                    _part_way(problem, ladder[rung - 1], picks, attempt)
                break
    if best is not None:
        _downhill(problem, open_, best, attempt)
    return best


def _uniform(problem: Problem, open_: Open) -> Iterator[tuple[int, ...]]:
    """One sharding type for all tables, where they all have it."""
    groups = list(zip(open_, problem.candidates, strict=True))
    for kind in sorted({group[i].sharding_type for some, group in groups for i in some}):
        of_kind = [[i for i in some if group[i].sharding_type == kind] for some, group in groups]
        if all(of_kind):
            best = [min(some, key=lambda i, g=group: g[i].total_time) for some, (_, group) in zip(of_kind, groups, strict=True)]  # type: ignore[misc]
            yield tuple(best[kind] for kind in problem.kinds)


def _ladders(problem: Problem, open_: Open) -> Iterator[list[tuple[int, ...]]]:
    groups = [[group[i] for i in some] for some, group in zip(open_, problem.candidates, strict=True)]
    longest = [np.array([one.longest for one in group]) for group in groups]
    total = [np.array([one.total_time for one in group]) for group in groups]
    bytes_ = [np.array([one.weighed_bytes for one in group]) for group in groups]
    least = max(float(times.min()) for times in longest)
    values = np.unique(np.concatenate([np.round(times, 9) for times in longest]))
    bounds = values[values >= least - 1e-9]
    if len(bounds) > BOUNDS:
        bounds = bounds[np.linspace(0, len(bounds) - 1, BOUNDS).round().astype(int)]
    # A byte's price in milliseconds: what all tables take, over all room.
    unit = sum(float(times.min()) for times in total) / max(float(problem.room.hbm.sum()), float(problem.room.ddr.sum()) * 0.01, 1.0)
    for bound in bounds[::-1]:
        ladder = []
        for price in PRICES:
            group_picks = []
            for some, times, totals, sizes in zip(open_, longest, total, bytes_, strict=True):
                cost = np.where(times <= bound + 1e-9, totals + price * unit * len(problem.kinds) * sizes, np.inf)
                group_picks.append(some[int(cost.argmin() if np.isfinite(cost).any() else times.argmin())])
            ladder.append(tuple(group_picks[kind] for kind in problem.kinds))
        yield list(dict.fromkeys(ladder))


def _part_way(problem: Problem, large: Sequence[int], small: Sequence[int], attempt: Attempt) -> None:
    """Between picks that do not fit and picks that do: as few of the second as do, those first that save most bytes a millisecond."""
    gains = []
    for table, (one, other) in enumerate(zip(problem.chosen(large), problem.chosen(small), strict=True)):
        if one is not other:
            gains.append(((one.weighed_bytes - other.weighed_bytes) / max(other.total_time - one.total_time, 1e-9), table))
    order = [table for _, table in sorted(gains, key=lambda pair: (-pair[0], pair[1]))]
    low, high = 0, len(order)
    while high - low > 1:
        middle = (low + high) // 2
        if attempt(_with(large, {table: small[table] for table in order[:middle]})) is not None:
            high = middle
        else:
            low = middle


def _with(picks: Sequence[int], changed: dict[int, int]) -> tuple[int, ...]:
    return tuple(changed.get(table, pick) for table, pick in enumerate(picks))


def _downhill(problem: Problem, open_: Open, start: Solution, attempt: Attempt) -> None:
    """First improvement over the tables of the critical rank, the heaviest first, until there is none or TRIES are over."""
    picks, placed, tries = start.picks, start.placed, 0
    improved = True
    while improved and tries < TRIES:
        improved = False
        steps = itertools.chain(_changes(problem, open_, picks, placed), _exchanges(problem, open_, picks, placed, attempt))
        for changed in itertools.islice(steps, TRIES - tries):
            tries += 1
            found = attempt(changed)
            if found is not None and found.score < placed.score:
                picks, placed, improved = changed, found, True
                break


def _changes(problem: Problem, open_: Open, picks: tuple[int, ...], placed: Placed) -> Iterator[tuple[int, ...]]:
    """Another candidate for a table, or for it and all that are like it.

    Left out is what cannot be better wherever it lies: a shard, or the mean of all ranks, takes longer than the critical rank does now.
    """
    ranks, (worst, mean) = len(placed.time), placed.score
    for table in _on_critical_rank(problem, picks, placed):
        kind, pick = problem.kinds[table], picks[table]
        group = problem.candidates[kind]
        alike = [one for one, of_kind in enumerate(problem.kinds) if of_kind == kind and picks[one] == pick]
        for together in ([table], alike) if len(alike) > 1 else ([table],):
            for other in _others(problem, open_, kind, pick, worst):
                if mean + len(together) * (group[other].total_time - group[pick].total_time) / ranks <= worst:
                    yield _with(picks, dict.fromkeys(together, other))


def _exchanges(problem: Problem, open_: Open, picks: tuple[int, ...], placed: Placed, attempt: Attempt) -> Iterator[tuple[int, ...]]:
    """A candidate that does not fit by itself, together with one of another table that has fewer bytes or smaller shards."""
    ranks, (worst, mean) = len(placed.time), placed.score
    savers = sorted(_savers(problem, open_, picks, worst))
    if not savers:
        return
    for table in _on_critical_rank(problem, picks, placed):
        group, pick = problem.candidates[problem.kinds[table]], picks[table]
        for other in _others(problem, open_, problem.kinds[table], pick, worst):
            allowed = (worst - mean) * ranks - (group[other].total_time - group[pick].total_time)
            if allowed < savers[0][0] or attempt(_with(picks, {table: other})) is not None:
                continue
            for _, second, smaller in itertools.takewhile(lambda one, most=allowed: one[0] <= most, savers):  # type: ignore[misc]
                if second != table:
                    yield _with(picks, {table: other, second: smaller})


def _savers(problem: Problem, open_: Open, picks: tuple[int, ...], worst: float) -> Iterator[tuple[float, int, int]]:
    """What spares memory: milliseconds that it costs over all ranks, table, candidate. Of tables that are alike the last one does."""
    for (kind, pick), table in {(problem.kinds[table], pick): table for table, pick in enumerate(picks)}.items():
        group = problem.candidates[kind]
        for other in _others(problem, open_, kind, pick, worst):
            if group[other].weighed_bytes < group[pick].weighed_bytes or group[other].largest < group[pick].largest:
                yield group[other].total_time - group[pick].total_time, table, other


def _others(problem: Problem, open_: Open, kind: int, pick: int, worst: float) -> list[int]:
    """A kind's other candidates that no shard rules out, those that cost least in all first."""
    group = problem.candidates[kind]
    return sorted((i for i in open_[kind] if i != pick and group[i].longest <= worst), key=lambda i: group[i].total_time)


def _on_critical_rank(problem: Problem, picks: Sequence[int], placed: Placed) -> list[int]:
    critical = int(placed.time.argmax())
    load = []
    for table, (one, ranks) in enumerate(zip(problem.chosen(picks), placed.ranks, strict=True)):
        there = float(one.time[ranks == critical].sum())
        if there > 0:
            load.append((-there, table))
    return [table for _, table in sorted(load)]
