"""Choosing a candidate for every table so that the slowest rank is as fast as possible.

Makespan by its dual (Hochbaum and Shmoys 1987): for a bound on a shard's time, every table takes the candidate within it that costs least
in all, with a price on memory where memory binds; what is left is placing. The best of these plans then goes downhill: the tables of the
critical rank try their other candidates. Nothing depends on a clock, so a plan is a function of its inputs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from dmoe.sharding.candidates import Candidate
from dmoe.sharding.place import Placed, Room, place

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
    """The best plan found, or None where none of those tried fits."""
    best: Solution | None = None
    tried: dict[tuple[int, ...], Placed | None] = {}

    def attempt(picks: tuple[int, ...]) -> Placed | None:
        nonlocal best
        if picks not in tried:
            tried[picks] = placed = problem.place(picks)
            if placed is not None and (best is None or placed.score < best.placed.score):
                best = Solution(picks, placed, 0)
        return tried[picks]

    for picks in _uniform(problem):
        attempt(picks)
    for ladder in _ladders(problem):
        # The lowest price on memory at which the plan fits; a higher one only makes it slower.
        for picks in ladder:
            if attempt(picks) is not None:
                break
    if best is None:
        return None
    _downhill(problem, best, attempt)
    return Solution(best.picks, best.placed, len(tried))


def _uniform(problem: Problem) -> Iterator[tuple[int, ...]]:
    """One sharding type for all tables, where they all have it."""
    for kind in sorted({one.sharding_type for group in problem.candidates for one in group}):
        of_kind = [[i for i, one in enumerate(group) if one.sharding_type == kind] for group in problem.candidates]
        if all(of_kind):
            best = [min(some, key=lambda i, g=group: g[i].time.sum()) for some, group in zip(of_kind, problem.candidates, strict=True)]  # type: ignore[misc]
            yield tuple(best[kind] for kind in problem.kinds)


def _ladders(problem: Problem) -> Iterator[list[tuple[int, ...]]]:
    longest = [np.array([one.time.max() for one in group]) for group in problem.candidates]
    total = [np.array([one.time.sum() for one in group]) for group in problem.candidates]
    bytes_ = [np.array([one.hbm.sum() + 0.01 * one.ddr.sum() for one in group]) for group in problem.candidates]
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
            for times, totals, sizes in zip(longest, total, bytes_, strict=True):
                cost = np.where(times <= bound + 1e-9, totals + price * unit * len(problem.kinds) * sizes, np.inf)
                group_picks.append(int(cost.argmin()) if np.isfinite(cost).any() else int(times.argmin()))
            ladder.append(tuple(group_picks[kind] for kind in problem.kinds))
        yield list(dict.fromkeys(ladder))


def _downhill(problem: Problem, start: Solution, attempt: object) -> None:
    """First improvement over the tables of the critical rank, the heaviest first."""
    picks, placed, tries = start.picks, start.placed, 0
    improved = True
    while improved and tries < TRIES:
        improved = False
        for table in _on_critical_rank(problem, picks, placed):
            for other in range(len(problem.candidates[problem.kinds[table]])):
                if other == picks[table] or tries >= TRIES:
                    continue
                changed = (*picks[:table], other, *picks[table + 1 :])
                tries += 1
                found: Placed | None = attempt(changed)  # type: ignore[operator]
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
