"""Choosing a candidate for every table so that the slowest rank is as fast as possible.

Makespan by its dual (Hochbaum and Shmoys 1987): for a bound on a shard's time, every table takes the candidate within it that costs least
in all, with a price on memory where memory binds; what is left is placing. The best of these plans then goes downhill: the tables of the
critical rank try their other candidates. Nothing depends on a clock, so a plan is a function of its inputs.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from dmoe.sharding.candidates import Candidate
from dmoe.sharding.place import HOST, Placed, Room, place

BOUNDS, PRICES = 24, (0.0, 1e-3, 1e-2, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0)
TRIES = 500
"""Placements that going downhill may take; each is a few milliseconds for a hundred tables on a thousand ranks."""


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

    Searched among all candidates, and among those that do not fill whole hosts: going downhill from a start with fewer choices can end
    lower, and leaving a choice out must never give a better plan.
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
        for picks in ladder:
            if attempt(picks) is not None:
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
    longest = [np.array([one.time.max() for one in group]) for group in groups]
    total = [np.array([one.total_time for one in group]) for group in groups]
    bytes_ = [np.array([one.hbm.sum() + 0.01 * one.ddr.sum() for one in group]) for group in groups]
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


def _downhill(problem: Problem, open_: Open, start: Solution, attempt: Attempt) -> None:
    """First improvement over the tables of the critical rank, the heaviest first."""
    picks, placed, tries = start.picks, start.placed, 0
    improved = True
    while improved and tries < TRIES:
        improved = False
        for table in _on_critical_rank(problem, picks, placed):
            for other in open_[problem.kinds[table]]:
                if other == picks[table] or tries >= TRIES:
                    continue
                changed = (*picks[:table], other, *picks[table + 1 :])
                tries += 1
                found = attempt(changed)
                if found is not None and found.score < placed.score:
                    picks, placed, improved = changed, found, True
                    break
            if improved:
                break


def _on_critical_rank(problem: Problem, picks: Sequence[int], placed: Placed) -> list[int]:
    critical = int(placed.time.argmax())
    load = []
    for table, (one, ranks) in enumerate(zip(problem.chosen(picks), placed.ranks, strict=True)):
        there = float(one.time[ranks == critical].sum())
        if there > 0:
            load.append((-there, table))
    return [table for _, table in sorted(load)]
