"""Choosing a candidate for every table so that the slowest rank is as fast as possible.

Makespan by its dual (Hochbaum and Shmoys 1987): for a bound on a shard's time, every table takes the candidate within it that costs least
in all, with a price on memory where memory binds; what is left is placing. A price moves all tables that are alike at once, so between two
prices only some of them are moved. The best of these plans then goes downhill: the tables of the critical rank try their other candidates,
alone and with all that are like them, all placed anew; and from there step by step, all else staying where it is (`local_search`). Nothing
depends on a clock, so a plan is a function of its inputs. It is a heuristic, but it knows a time that no plan is under (`lower_bound`), and
ends where it is near that.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from dmoe.alive import detail
from dmoe.sharding.planner.enumerator import Candidate
from dmoe.sharding.planner.local_search import State, improve
from dmoe.sharding.planner.lower_bound import first_least, lacks_room, lower_bound
from dmoe.sharding.planner.mixture import mixtures
from dmoe.sharding.planner.partitioner import HOST, Placed, Room, place

BOUNDS, PRICES = 24, (0.0, 1e-3, 1e-2, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0)
TRIES, TABLES_TRIED = 500, 50_000
"""Changes that one descent may try with all placed anew, and tables that it may place in all."""
STEPS_A_RANK = 50
"""Steps with all else staying that one descent may take, for each rank."""
GAP = 0.01
"""Share by which a plan may be over the lower bound and is good enough."""


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
    """
    Attributes:
        picks: the index of each table's candidate.
        placements: how many plans were tried, all of whose tables were placed.
        bound: milliseconds that no plan's critical rank is under.
        complete: the search was not interrupted.
    """

    picks: tuple[int, ...]
    placed: Placed
    placements: int
    bound: float = 0.0
    complete: bool = True


def search(problem: Problem, gap: float = GAP, keep_best: bool = False) -> Solution | None:
    """The best plan found, or None where none of those tried fits.

    Searched among all candidates, and once more among those that do not fill whole hosts: a descent that starts with fewer choices can end
    lower, and the better of both is kept. A config that leaves out other types can still end lower than one that allows all.

    Args:
        gap: ends where the critical rank is within this share of the lower bound.
        keep_best: an interrupt ends the search and not the program, once a plan is found.
    """
    if lacks_room(problem.candidates, problem.kinds, problem.room):
        return None
    found = _Search(problem, gap)
    complete = True
    try:
        found.run()
    except KeyboardInterrupt:
        if not keep_best or found.best is None:
            raise
        complete = False
    if found.best is None:
        return None
    return Solution(found.best.picks, found.best.placed, len(found.tried), found.bound, complete)


class _Search:
    """What is known so far: plans tried, the best of them, the bound."""

    def __init__(self, problem: Problem, gap: float) -> None:
        self.problem, self.gap = problem, gap
        self.tried: dict[tuple[int, ...], Placed | None] = {}
        self.best: Solution | None = None
        self.bound = 0.0

    def run(self) -> None:
        for open_ in _choices(self.problem):
            _Descent(self, open_).run()
            if self.near:
                return

    @property
    def near(self) -> bool:
        return self.best is not None and self.best.placed.score[0] <= self.bound * (1 + self.gap)

    def tighten(self) -> None:
        """Works the bound out, once there is a plan to compare it with."""
        if self.best is not None and not self.bound:
            detail("a lower bound")
            self.bound = lower_bound(self.problem.candidates, self.problem.kinds, self.problem.room, self.best.placed.score[0], self.gap)

    def offer(self, one: Solution) -> None:
        if self.best is None or one.placed.score < self.best.placed.score:
            self.best = one
            over = f", at most {one.placed.score[0] / self.bound - 1:.1%} over a lower bound" if self.bound else ""
            detail(f"best so far {one.placed.score[0]:.3f} ms{over}, {len(self.tried):,} plans tried")


Open = tuple[tuple[int, ...], ...]
"""For each kind of table the candidates that may be picked."""
Attempt = Callable[[tuple[int, ...]], Placed | None]


def _choices(problem: Problem) -> list[Open]:
    every = tuple(tuple(range(len(group))) for group in problem.candidates)
    single = tuple(
        tuple(i for i in some if group[i].sharding_type not in HOST) for some, group in zip(every, problem.candidates, strict=True)
    )
    return [every, single] if all(single) and single != every else [every]


class _Descent:
    """A search among some of the candidates."""

    def __init__(self, whole: _Search, open_: Open) -> None:
        self.whole, self.problem, self.open_ = whole, whole.problem, open_
        self.best: Solution | None = None

    def run(self) -> None:
        for picks in _uniform(self.problem, self.open_):
            self.attempt(picks)
        for ladder in _ladders(self.problem, self.open_):
            # The lowest price on memory at which the plan fits; a higher one only makes it slower.
            for rung, picks in enumerate(ladder):
                # What lies between two rungs is not faster than the lower one.
                if self.hopeless(ladder[max(rung - 1, 0)]):
                    break
                if self.attempt(picks) is not None:
                    if rung:
                        _part_way(self.problem, ladder[rung - 1], picks, self.attempt)
                    break
        if self.best is None:
            self.mix()
        self.whole.tighten()
        if self.best is None or self.whole.near:
            return
        start = self.best
        self.walk(start)
        if self.whole.near:
            return
        tries = min(TRIES, TABLES_TRIED // len(self.problem.kinds))
        _downhill(self.problem, self.open_, start, self.attempt, tries)
        if self.best is not start:
            self.walk(self.best)

    def mix(self) -> None:
        """Where no price on all memory makes a plan fit: some tables on the devices, the others in the hosts' memory."""
        for of_bound in mixtures(self.problem.candidates, self.open_, self.problem.kinds, self.problem.room):
            for picks in of_bound:
                if self.hopeless(picks) or self.attempt(picks) is not None:
                    break

    def attempt(self, picks: tuple[int, ...]) -> Placed | None:
        tried = self.whole.tried
        if picks not in tried:
            tried[picks] = self.problem.place(picks)
        placed = tried[picks]
        if placed is not None and (self.best is None or placed.score < self.best.placed.score):
            self.best = Solution(picks, placed, 0)
            self.whole.offer(self.best)
        return placed

    def hopeless(self, picks: tuple[int, ...]) -> bool:
        """Whether no placement of them can be faster than the best plan: their mean, or a shard, takes longer."""
        if self.best is None:
            return False
        chosen = self.problem.chosen(picks)
        mean = sum(one.total_time for one in chosen) / len(self.problem.room.hbm)
        return max(mean, max(one.longest for one in chosen)) >= self.best.placed.score[0]

    def walk(self, start: Solution) -> None:
        """Improves a plan with all else staying where it is."""
        problem = self.problem
        state = State(problem.chosen(start.picks), start.placed.ranks, problem.pinned, problem.room)
        others = [[problem.candidates[kind][pick] for pick in self.open_[kind]] for kind in problem.kinds]
        improve(state, others, self.whole.bound * (1 + self.whole.gap), STEPS_A_RANK * len(problem.room.hbm))
        numbers = [{id(one): number for number, one in enumerate(group)} for group in problem.candidates]
        picks = tuple(numbers[kind][id(one)] for kind, one in zip(problem.kinds, state.chosen, strict=True))
        self.whole.offer(Solution(picks, state.placed(), 0))


def _uniform(problem: Problem, open_: Open) -> Iterator[tuple[int, ...]]:
    """One sharding type for all tables, where they all have it."""
    groups = list(zip(open_, problem.candidates, strict=True))
    for kind in sorted({group[i].sharding_type for some, group in groups for i in some}):
        of_kind = [[i for i in some if group[i].sharding_type == kind] for some, group in groups]
        if all(of_kind):
            best = [min(some, key=lambda i, g=group: g[i].total_time) for some, (_, group) in zip(of_kind, groups, strict=True)]  # type: ignore[misc]
            yield tuple(best[kind] for kind in problem.kinds)


def _ladders(problem: Problem, open_: Open) -> Iterator[list[tuple[int, ...]]]:
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


def _downhill(problem: Problem, open_: Open, start: Solution, attempt: Attempt, most: int) -> None:
    """First improvement over the tables of the critical rank, the heaviest first, until there is none or `most` were tried."""
    picks, placed, tries = start.picks, start.placed, 0
    improved = True
    while improved and tries < most:
        improved = False
        steps = itertools.chain(_changes(problem, open_, picks, placed), _exchanges(problem, open_, picks, placed, attempt))
        for changed in itertools.islice(steps, most - tries):
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
