"""Chooses a candidate for each table so that the slowest rank is as fast as possible.

Dual approach to makespan (Hochbaum and Shmoys 1987): for a bound on a shard's time, each table uses the candidate within the bound that has
the least total cost, with a price on memory if memory is short; the candidates are then placed. A price changes all equal tables at once,
so plans between two prices change only some of them. The best plan is then improved in two ways: step by step, with all other tables in
place (`local_search`), and by changes that place all tables again (`descent`). The search does not depend on a clock, so a plan depends
only on its inputs. The search is a heuristic; it stops when it is near a lower bound on the time of any plan (`lower_bound`).
"""

from dmoe.processes.alive import detail
from dmoe.sharding.planner.search.descent import downhill
from dmoe.sharding.planner.search.local_search import State, improve
from dmoe.sharding.planner.search.lower_bound import lacks_room, lower_bound
from dmoe.sharding.planner.search.mixture import mixtures
from dmoe.sharding.planner.search.partitioner import HOST, Placed
from dmoe.sharding.planner.search.problem import Open, Problem, Solution
from dmoe.sharding.planner.search.proposals import ladders, part_way, replicated, uniform

TRIES, TABLES_TRIED = 500, 50_000
"""Maximum number of changes that one descent may try with all tables placed again, and of tables that it may place in total."""
REPLICATED = 50
"""Maximum number of plans with more tables on every rank to try."""
STEPS_A_RANK = 50
"""Maximum number of local search steps of one descent, per rank."""
GAP = 0.01
"""The search stops at a plan whose time exceeds the lower bound by at most this share."""


def search(problem: Problem, gap: float = GAP, keep_best: bool = False) -> Solution | None:
    """The best plan found; None if no plan that was tried fits.

    Searches among all candidates, then among those that do not use whole hosts: a descent with fewer choices may find a faster plan. The
    faster plan is kept. A config that allows fewer types can still give a faster plan than one that allows all.

    Args:
        gap: stop when the critical rank's time is within this share of the lower bound.
        keep_best: after a plan was found, an interrupt stops the search but not the program.
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
    """State of the search: the plans tried, the best plan, the lower bound."""

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
        """Computes the lower bound once a plan is known."""
        if self.best is not None and not self.bound:
            detail("a lower bound")
            self.bound = lower_bound(self.problem.candidates, self.problem.kinds, self.problem.room, self.best.placed.score[0], self.gap)

    def offer(self, one: Solution) -> None:
        if self.best is None or one.placed.score < self.best.placed.score:
            self.best = one
            over = f", at most {one.placed.score[0] / self.bound - 1:.1%} over a lower bound" if self.bound else ""
            detail(f"best so far {one.placed.score[0]:.3f} ms{over}, {len(self.tried):,} plans tried")


def _choices(problem: Problem) -> list[Open]:
    every = tuple(tuple(range(len(group))) for group in problem.candidates)
    single = tuple(
        tuple(i for i in some if group[i].sharding_type not in HOST) for some, group in zip(every, problem.candidates, strict=True)
    )
    return [every, single] if all(single) and single != every else [every]


class _Descent:
    """A search among the candidates `open_`."""

    def __init__(self, whole: _Search, open_: Open) -> None:
        self.whole, self.problem, self.open_ = whole, whole.problem, open_
        self.best: Solution | None = None

    def run(self) -> None:
        for picks in uniform(self.problem, self.open_):
            self.attempt(picks)
        for ladder in ladders(self.problem, self.open_):
            # Use the lowest price on memory with which the plan fits; a higher one only makes it slower.
            for rung, picks in enumerate(ladder):
                # Plans between two rungs are not faster than the lower rung.
                if self.hopeless(ladder[max(rung - 1, 0)]):
                    break
                if self.attempt(picks) is not None:
                    if rung:
                        part_way(self.problem, ladder[rung - 1], picks, self.attempt)
                    break
        if self.best is None:
            self.mix()
        self.whole.tighten()
        if self.best is None or self.whole.near:
            return
        self.replicate()
        if self.whole.near:
            return
        start = self.best
        self.walk(start)
        if self.whole.near:
            return
        tries = min(TRIES, TABLES_TRIED // len(self.problem.kinds))
        downhill(self.problem, self.open_, start, self.attempt, tries)
        if self.best is not start:
            self.walk(self.best)

    def replicate(self) -> None:
        """Tries more tables on every rank, while that can be faster than the best plan."""
        assert self.best is not None
        tries = min(REPLICATED, TABLES_TRIED // len(self.problem.kinds))
        for least, picks in replicated(self.problem, self.open_, self.best.placed.score[0])[:tries]:
            if least >= self.best.placed.score[0]:
                return
            self.attempt(picks)

    def mix(self) -> None:
        """Tries some tables in device memory and the others in host memory, if no plan fits with one price on all memory."""
        for of_bound in mixtures(self.problem, self.open_):
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
        """True if no placement of the picks can be faster than the best plan: the mean time or the time of a shard is not smaller."""
        if self.best is None:
            return False
        chosen = self.problem.chosen(picks)
        mean = sum(one.total_time for one in chosen) / len(self.problem.room.hbm)
        return max(mean, max(one.longest for one in chosen)) >= self.best.placed.score[0]

    def walk(self, start: Solution) -> None:
        """Improves a plan by local search."""
        problem = self.problem
        state = State(problem.chosen(start.picks), start.placed.ranks, problem.pinned, problem.room)
        others = [[problem.candidates[kind][pick] for pick in self.open_[kind]] for kind in problem.kinds]
        improve(state, others, self.whole.bound * (1 + self.whole.gap), STEPS_A_RANK * len(problem.room.hbm))
        numbers = [{id(one): number for number, one in enumerate(group)} for group in problem.candidates]
        picks = tuple(numbers[kind][id(one)] for kind, one in zip(problem.kinds, state.chosen, strict=True))
        self.whole.offer(Solution(picks, state.placed(), 0))
