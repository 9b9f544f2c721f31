"""Descent in which each change places all tables again: tables of the critical rank try other candidates.

A change affects one table, all tables that are equal to it, or exchanges memory with another table.
"""

import itertools
from collections.abc import Iterator, Sequence

from dmoe.sharding.planner.search.partitioner import Placed
from dmoe.sharding.planner.search.problem import Attempt, Open, Problem, Solution
from dmoe.sharding.planner.search.proposals import with_picks


def downhill(problem: Problem, open_: Open, start: Solution, attempt: Attempt, most: int) -> None:
    """First-improvement descent over the tables of the critical rank, the slowest first, until no change helps or `most` were tried."""
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
    """Picks with another candidate for one table, or for it and all equal tables.

    Leaves out candidates that no placement can make better: a shard, or the mean of all ranks, exceeds the critical rank's current time.
    """
    ranks, (worst, mean) = len(placed.time), placed.score
    for table in _on_critical_rank(problem, picks, placed):
        kind, pick = problem.kinds[table], picks[table]
        group = problem.candidates[kind]
        alike = [one for one, of_kind in enumerate(problem.kinds) if of_kind == kind and picks[one] == pick]
        for together in ([table], alike) if len(alike) > 1 else ([table],):
            for other in _others(problem, open_, kind, pick, worst):
                if mean + len(together) * (group[other].total_time - group[pick].total_time) / ranks <= worst:
                    yield with_picks(picks, dict.fromkeys(together, other))


def _exchanges(problem: Problem, open_: Open, picks: tuple[int, ...], placed: Placed, attempt: Attempt) -> Iterator[tuple[int, ...]]:
    """Picks with a candidate that does not fit alone, and for another table a candidate with fewer bytes or smaller shards."""
    ranks, (worst, mean) = len(placed.time), placed.score
    savers = sorted(_savers(problem, open_, picks, worst))
    if not savers:
        return
    for table in _on_critical_rank(problem, picks, placed):
        group, pick = problem.candidates[problem.kinds[table]], picks[table]
        for other in _others(problem, open_, problem.kinds[table], pick, worst):
            allowed = (worst - mean) * ranks - (group[other].total_time - group[pick].total_time)
            if allowed < savers[0][0] or attempt(with_picks(picks, {table: other})) is not None:
                continue
            for _, second, smaller in itertools.takewhile(lambda one, most=allowed: one[0] <= most, savers):  # type: ignore[misc]
                if second != table:
                    yield with_picks(picks, {table: other, second: smaller})


def _savers(problem: Problem, open_: Open, picks: tuple[int, ...], worst: float) -> Iterator[tuple[float, int, int]]:
    """Candidates that save memory: (additional milliseconds over all ranks, table, candidate); of equal tables, only the last one."""
    for (kind, pick), table in {(problem.kinds[table], pick): table for table, pick in enumerate(picks)}.items():
        group = problem.candidates[kind]
        for other in _others(problem, open_, kind, pick, worst):
            if group[other].weighed_bytes < group[pick].weighed_bytes or group[other].largest < group[pick].largest:
                yield group[other].total_time - group[pick].total_time, table, other


def _others(problem: Problem, open_: Open, kind: int, pick: int, worst: float) -> list[int]:
    """The other candidates of a kind whose shards are all fast enough, the least total time first."""
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
