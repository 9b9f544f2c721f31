"""Checks a plan against limits, for continuous integration, and lists the ranks that exceed each limit."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dmoe.errors import UserError
from dmoe.model.budget.sizes import left
from dmoe.report.document import Bullets, Cell, Document, Heading, Note, Table
from dmoe.sharding.plan.report.plan_stats import Figures, RankFigures

WORST = 8
"""Maximum number of offending ranks listed for each limit."""


@dataclass(frozen=True)
class Limits:
    """Limits to check; None: not checked.

    Attributes:
        max_imbalance: maximum predicted time of a rank, divided by the mean of all ranks.
        min_headroom: minimum share of a rank's memory that is neither used by tables nor reserved by the planner.
        max_time_ms: maximum predicted time of a rank for the tables, per step.
        max_tables_a_rank: maximum number of tables with a shard on a rank.
    """

    max_imbalance: float | None = None
    min_headroom: float | None = None
    max_time_ms: float | None = None
    max_tables_a_rank: int | None = None

    def __post_init__(self) -> None:
        for name, least in (("max_imbalance", 1.0), ("min_headroom", 0.0), ("max_time_ms", 0.0), ("max_tables_a_rank", 0)):
            value = getattr(self, name)
            # This form also refuses NaN.
            if value is not None and not value >= least:
                raise UserError(f"--{name.replace('_', '-')} {value}: expected at least {least:g}")
        if self.min_headroom is not None and self.min_headroom >= 1:
            raise UserError(f"--min-headroom {self.min_headroom:.0%}: expected less than 100%; a share of memory such as 10% or 0.1")


@dataclass(frozen=True)
class Finding:
    """The result for one limit. `offending`: (rank, formatted value) of the ranks beyond the limit, the worst first."""

    what: str
    limit: str
    worst: str
    offending: tuple[tuple[int, str], ...]
    note: str = ""

    @property
    def passed(self) -> bool:
        return not self.offending and not self.note


def share(text: str) -> float:
    """Parses `10%` or `0.1`.

    Raises:
        UserError: another format.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(%?)\s*", text)
    if not found:
        raise UserError(f"--min-headroom {text}: expected a share of memory such as 10% or 0.1")
    return float(found[1]) / (100 if found[2] else 1)


def findings(figures: Figures, limits: Limits) -> list[Finding]:
    """The result for each limit that is set; that the plan fits in memory is always checked."""
    mean, on_gpu = figures.mean_ms, figures.cluster.device.kind == "cuda"
    Check = tuple[str, str, Callable[[RankFigures], float], Callable[[float], str], float]
    checks: list[Check] = [
        (
            "fits in memory",
            "0 B free",
            lambda rank: -float(min(rank.free, rank.host_free) if on_gpu else rank.free),
            lambda value: f"{left(-value)}{' free' * (value <= 0)}",
            0.0,
        )
    ]
    if (least := limits.min_headroom) is not None:
        checks.append(("headroom", f"at least {least:.1%}", lambda rank: -figures.headroom(rank), lambda v: f"{-v:.1%}", -least))
    if (most := limits.max_imbalance) is not None:
        ratio = lambda rank: rank.time_ms / mean if mean else 1.0  # noqa: E731
        checks.append(("imbalance", f"at most {most:g} x the mean", ratio, lambda value: f"{value:.3f} x", most))
    if (most := limits.max_time_ms) is not None:
        checks.append(("predicted time", f"at most {most:g} ms", lambda rank: rank.time_ms, lambda value: f"{value:.3f} ms", most))
    if (tables := limits.max_tables_a_rank) is not None:
        checks.append(("tables a rank", f"at most {tables:,}", lambda rank: float(rank.tables), lambda value: f"{value:.0f}", tables))
    return [_finding(figures.ranks, *check) for check in checks]


def _finding(ranks: Sequence[RankFigures], what: str, limit: str, value: Any, word: Any, most: float) -> Finding:
    """The result for a value that must not exceed `most`, with a tolerance for rounding."""
    ordered = sorted(((value(rank), rank.rank) for rank in ranks), key=lambda pair: (-pair[0], pair[1]))
    beyond = [(rank, word(amount)) for amount, rank in ordered if amount > most + 1e-9 * max(abs(most), 1.0)]
    return Finding(what, limit, f"{word(ordered[0][0])} on rank {ordered[0][1]}", tuple(beyond))


def model_finding(plan: Mapping[str, Any], described: Any, where: str) -> Finding:
    """Checks that the plan is for this model: same tables, optimizer, constraints and batch size.

    Args:
        described: a `dmoe.sharding.planner.planning_model.Described`.
    """
    from dmoe.sharding.plan.job_plan import refuse_other
    from dmoe.sharding.plan.plan_file import check_plan, constraints_hash, precision_of

    config, note = described.config, ""
    try:
        refuse_other(plan, described.tables, config, check_plan(plan, where), where)
    except UserError as error:
        note = str(error)
    if not note and plan["batch_size"] != config.train.batch_size:
        note = f"made for a global batch of {plan['batch_size']:,}, the config has {config.train.batch_size:,}; plan again"
    if not note and (made := precision_of(plan)) != config.sharding.comm_precision:
        note = f"made for embeddings sent in {made}, the config has sharding.comm_precision {config.sharding.comm_precision}; plan again"
    if not note and plan["hashes"].get("constraints") != constraints_hash(config):
        note = "made with other constraints than the config's sharding section; plan again"
    return Finding("the config's model", "the plan's", "the plan's", (), note)


def as_lines(found: Sequence[Finding]) -> Iterator[str]:
    """One line per limit, and one for each of the worst offending ranks."""
    for one in found:
        yield f"{'ok  ' if one.passed else 'FAIL'}  {one.what}: {one.note or _told(one)}"
        for rank, value in one.offending[:WORST]:
            yield f"        rank {rank}: {value}"
        if len(one.offending) > WORST:
            yield f"        and {len(one.offending) - WORST:,} more ranks"


def check_document(found: Sequence[Finding], where: str) -> Document:
    """The results as a document.

    Args:
        where: path of the plan file.
    """
    failed = sum(not one.passed for one in found)
    summary = f"{where}: {len(found) - failed} of {len(found)} limits hold."
    rows = [[one.what, Cell("held" if one.passed else "exceeded", "good" if one.passed else "bad"), one.worst, one.limit] for one in found]
    beyond = [[one.what, str(rank), value] for one in found for rank, value in one.offending]
    return Document(
        f"Check of {where}",
        [
            Note("\n".join(as_lines(found)), "code", "text"),
            Note(summary, "bad" if failed else "good", "page"),
            Table(["limit", "is", "worst", "allowed"], rows, words=(0, 1, 2, 3), only="page"),
            Bullets([f"{one.what}: {one.note}" for one in found if one.note], "page"),
            Heading("Ranks beyond a limit"),
            Table(["limit", "rank", "value"], beyond, only="page"),
        ],
    )


def _told(one: Finding) -> str:
    return one.worst if one.worst == one.limit else f"{one.worst} (worst), allowed {one.limit}"


def as_data(found: Sequence[Finding]) -> dict[str, Any]:
    return {
        "passed": all(one.passed for one in found),
        "findings": [
            {**asdict(one), "passed": one.passed, "offending": [{"rank": rank, "value": value} for rank, value in one.offending]}
            for one in found
        ],
    }
