"""Explains the choice for each table: the candidates tried, the cost of the plan with each, and the constraint that decided."""

from collections.abc import Sequence
from typing import Any

from dmoe.model.embedding.tables import Table
from dmoe.processes.alive import detail
from dmoe.sharding.planner.constraints import Rule
from dmoe.sharding.planner.search.local_search import State
from dmoe.sharding.planner.search.problem import Problem, Solution


def reasons(tables: Sequence[Table], rules: dict[str, Rule], problem: Problem, solution: Solution) -> dict[str, dict[str, Any]]:
    """For each table `decided`, a text, and `tried`, one row per candidate.

    `plan_ms` of a candidate is the time of the critical rank if this table used the candidate and all other tables stayed unchanged; null
    if that does not fit.
    """
    state = State(problem.chosen(solution.picks), solution.placed.ranks, problem.pinned, problem.room)
    kept = float(solution.placed.time.max())
    told: dict[tuple[int, int], list[dict[str, Any]]] = {}
    found = {}
    for index, table in enumerate(tables):
        kind, pick = problem.kinds[index], solution.picks[index]
        # Equal tables with the same candidate share the figures of the first one.
        if (kind, pick) not in told or problem.pinned[index] is not None:
            detail(f"tries what else table {index + 1:,} could do")
            told[kind, pick] = _tried(problem, solution, state, index)
        tried = told[kind, pick]
        found[table.name] = {"decided": _decided(tried, rules[table.name], kept), "tried": tried}
    return found


def _tried(problem: Problem, solution: Solution, state: State, index: int) -> list[dict[str, Any]]:
    rows = []
    for number, one in enumerate(problem.candidates[problem.kinds[index]]):
        chosen = number == solution.picks[index]
        found = state.worst if chosen else state.find(index, one)
        worst = found[1] if isinstance(found, tuple) else found
        rows.append(
            {
                "what": one.label,
                "shards": len(one.time),
                "shard_ms": round(float(one.time.max()), 6),
                "all_ms": round(float(one.time.sum()), 6),
                "bytes": int(one.hbm.sum() + one.ddr.sum()),
                "plan_ms": None if worst is None else round(worst, 6),
                "chosen": chosen,
            }
        )
    return sorted(rows, key=lambda row: (not row["chosen"], row["plan_ms"] is None, row["plan_ms"] or 0.0))


def _decided(tried: list[dict[str, Any]], rule: Rule, kept: float) -> str:
    constraint = next((reason for _, reason in rule.reasons if reason.startswith("sharding.tables")), "")
    closed = f" ({constraint} closes {sum(r == constraint for _, r in rule.reasons)} other types)" if constraint else ""
    others = [row for row in tried if not row["chosen"]]
    if not others:
        return f"the only choice{closed}"
    fitting = [row for row in others if row["plan_ms"] is not None]
    if not fitting:
        return f"nothing else fits in memory{closed}"
    nearest = fitting[0]
    slower = nearest["plan_ms"] - kept
    if slower > 1e-6:
        return f"next best {nearest['what']}: critical rank {slower:+.3f} ms{closed}"
    chosen = tried[0]
    if nearest["all_ms"] > chosen["all_ms"] + 1e-6:
        return f"{nearest['what']} is as fast on the critical rank, {nearest['all_ms'] - chosen['all_ms']:+.3f} ms over all ranks{closed}"
    return f"as fast as {nearest['what']}{closed}"
