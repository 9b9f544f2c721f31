"""A plan as text of at most 100 columns: summary of the cluster, placement of each table, and explanations."""

import fnmatch
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dmoe.errors import UserError, nearest, one_line
from dmoe.model.budget.sizes import human, left
from dmoe.names import clip
from dmoe.report.document import WIDTH, in_columns
from dmoe.sharding.plan.report.plan_stats import Figures, RankFigures, TableFigures
from dmoe.sharding.plan.report.show_words import bar, compact, histogram, kernel_word, ranks_in
from dmoe.sharding.plan.report.summary import over_bound
from dmoe.sharding.plan.sharders import CUT_ROWS
from dmoe.sharding.planner.cluster import Cluster
from dmoe.sharding.planner.cost.table_use import told

FOLD_ABOVE = 32
"""Up to this number, all ranks are listed; for more, only the slowest, the median, the fastest and the fullest."""
SORTS = ("size", "time", "name", "sent")


@dataclass(frozen=True)
class View:
    """Selects the parts of a plan to show.

    Attributes:
        sort: one of SORTS, the largest first.
        tables: a pattern such as `C1*`.
        ranks: for example `0-7,12` or `all`; empty for all ranks of a small cluster, or a few characteristic ones of a large cluster.
        top: number of tables; None for all.
        why: table or pattern of tables whose other candidates are shown; empty for none.
    """

    sort: str = "size"
    tables: str = "*"
    ranks: str = ""
    top: int | None = None
    why: str = ""


def as_lines(figures: Figures, view: View = View()) -> Iterator[str]:
    """The lines that `dmoe plan show` prints.

    Raises:
        UserError: no table matches the pattern, or a rank does not exist.
    """
    tables = chosen_tables(figures, view)
    if view.why:
        for table in matching(figures, view.why, "--why", tables)[: view.top]:
            yield from _why(table)
        return
    yield from _head(figures)
    yield ""
    yield from _ranks(figures, view.ranks)
    yield ""
    yield from _tables(tables[: view.top], figures.cluster.ranks)
    if len(left := tables[len(tables[: view.top]) :]):
        yield f"and {len(left)} more, {human(sum(table.size for table in left))} together"


def as_data(figures: Figures, view: View) -> dict[str, Any]:
    """The view as plain data, with all ranks unless the view names some."""
    data = figures.as_json()
    if view.ranks:
        data["ranks"] = [data["ranks"][rank] for rank in ranks_in(view.ranks, figures.cluster.ranks)]
    tables = chosen_tables(figures, view)
    tables = matching(figures, view.why, "--why", tables) if view.why else tables
    data["tables"] = [asdict(table) for table in tables[: view.top]]
    return data


def chosen_tables(figures: Figures, view: View) -> list[TableFigures]:
    """The tables of a view in its order, without the limit `top`."""
    found = matching(figures, view.tables, "--tables", figures.tables)
    if view.sort == "name":
        return sorted(found, key=lambda table: table.name)
    value = {"size": lambda table: table.size, "time": lambda table: table.time_ms, "sent": lambda table: table.sent}[view.sort]
    return sorted(found, key=lambda table: (-value(table), table.name))


def matching(figures: Figures, pattern: str, asked_by: str, among: Sequence[TableFigures]) -> list[TableFigures]:
    found = [table for table in among if table.name == pattern] or [table for table in among if fnmatch.fnmatchcase(table.name, pattern)]
    if not found:
        raise UserError(f"{asked_by} {one_line(pattern)}: no such table{nearest(pattern, [table.name for table in figures.tables])}")
    return found


def _head(figures: Figures) -> Iterator[str]:
    cluster, fullest = figures.cluster, figures.fullest
    nodes = f"{cluster.nodes} node{'s' * (cluster.nodes > 1)} of {cluster.ranks_a_node}"
    yield (
        f"{clip(cluster.name, 24)}: {cluster.ranks:,} rank{'s' * (cluster.ranks > 1)} on {nodes}, global batch"
        f" {figures.batch_size:,}, tables by {figures.optimizer}"
    )
    weights, state = (sum(getattr(table, what) for table in figures.tables) for what in ("weights", "state"))
    sent = "" if figures.comm_precision == "fp32" else f"; embeddings sent in {figures.comm_precision}"
    yield f"{len(figures.tables):,} tables: {human(weights)} of weights, {human(state)} of optimizer state{sent}"
    yield (
        f"critical rank {figures.critical}: {figures.time_ms:.3f} ms a step predicted for the tables, {figures.imbalance:.2f} x the mean"
    )
    if over := over_bound(figures.bound_ms, figures.time_ms):
        yield f"{over}: no plan takes less than {figures.bound_ms:.3f} ms"
    fits = f"{human(fullest.free)} free ({figures.headroom(fullest):.0%})" if fullest.free >= 0 else f"{human(-fullest.free)} TOO MUCH"
    taken = f"{human(fullest.reserved + fullest.memory)} of {human(cluster.memory_on(fullest.rank))} taken"
    yield f"fullest rank {fullest.rank}: {taken}, {fits}"
    for line in unequal(cluster):
        yield clip(line, WIDTH)


def unequal(cluster: Cluster) -> Iterator[str]:
    """Lines on ranks with other memory, and on ranks that hold no table."""
    if cluster.without:
        yield f"left out, without tables: rank{'s' * (len(cluster.without) > 1)} {', '.join(map(str, cluster.without))}"
    if cluster.memory_of:
        yield f"other memory: {', '.join(f'rank {rank} {human(size)}' for rank, size in cluster.memory_of)}"


def _ranks(figures: Figures, asked: str) -> Iterator[str]:
    ranks, total = figures.ranks, figures.cluster.ranks
    labels = {figures.critical: "critical"}
    if asked:
        shown = [ranks[number] for number in ranks_in(asked, total)]
    elif total <= FOLD_ABOVE:
        shown = list(ranks)
    else:
        times, memories = [rank.time_ms for rank in ranks], [float(rank.memory) for rank in ranks]
        left = histogram("predicted", times, lambda value: f"{value:.3f} ms")
        right = histogram("tables' memory", memories, human)
        for number in range(max(len(left), len(right))):
            pair = (side[number] if number < len(side) else "" for side in (left, right))
            yield "   ".join(f"{text:<47}" for text in pair).rstrip()
        yield ""
        slowest = sorted(ranks, key=lambda rank: (-rank.time_ms, rank.rank != figures.critical, rank.rank))
        telling = {**{rank.rank: "" for rank in slowest[:4]}, slowest[len(slowest) // 2].rank: "median", slowest[-1].rank: "fastest"}
        labels = {**telling, figures.fullest.rank: "fullest", figures.critical: "critical"}
        if figures.critical == figures.fullest.rank:
            labels[figures.critical] = "critical, fullest"
        shown = [rank for rank in slowest if rank.rank in labels]
    yield f"{'rank':>5}  {'taken':>8} {'of memory':<10} {'free':>8}  {'lookups':>7}  {'sent':>8}  {'predicted':>12}"
    for rank in shown:
        yield _rank(rank, figures, labels.get(rank.rank, ""))
    yield "      = kept for all else, # tables and their buffers, . free; sent: a step, to other ranks"
    if not asked and total > FOLD_ABOVE:
        yield f"      {len(shown)} of {total:,} ranks; --ranks 0-7 shows others, --ranks all all"


def _rank(rank: RankFigures, figures: Figures, label: str) -> str:
    memory = bar(((rank.reserved, "="), (rank.memory, "#")), figures.cluster.memory_on(rank.rank), 10, ".")
    time = bar(((rank.time_ms, "#"),), figures.time_ms, 12, " ")
    label = "left out" if rank.rank in figures.cluster.without else label
    label = "DOES NOT FIT" if rank.free < 0 or rank.host_free < 0 else label
    return (
        f"{rank.rank:>5}  {human(rank.reserved + rank.memory):>8} {memory} {left(rank.free):>8}  {rank.lookup_share:>7.2%}"
        f"  {human(rank.sent):>8}  {rank.time_ms:>9.3f} ms  {time} {label}"
    ).rstrip()


def _tables(tables: Sequence[TableFigures], ranks: int) -> Iterator[str]:
    head = ("table", "rows x columns", "w. state", "sharding", "kernel", "slowest", "sent")
    rows = [
        (
            table.name,
            f"{table.rows:,} x {table.columns}",
            human(table.size),
            table.sharding,
            kernel_word(table.kernel),
            f"{table.time_ms:.3f} ms",
            human(table.sent),
        )
        for table in tables
    ]
    lines = list(in_columns(head, rows, (0, 3, 4), width=WIDTH - 11, narrowest=5))
    room = WIDTH - 2 - max(map(len, lines))
    for line, held in zip(lines, ("ranks", *(compact(table.ranks, ranks, room) for table in tables)), strict=True):
        yield f"{line}  {held}".rstrip()


def _why(table: TableFigures) -> Iterator[str]:
    cut = f", {table.shards} shards" if table.sharding in CUT_ROWS else ""
    yield clip(f"{table.name}: {table.rows:,} x {table.columns}, {human(table.size)} with state, {table.sharding}{cut}", WIDTH)
    if table.use:
        yield from textwrap.wrap(told(table.use), WIDTH - 2, initial_indent="  ", subsequent_indent="  ")
    if not table.tried:
        yield "  the plan keeps no alternatives (it was made or edited without them); plan again to see them"
        yield ""
        return
    yield from textwrap.wrap(table.decided, WIDTH - 2, initial_indent="  ", subsequent_indent="  ")
    kept = next((row["plan_ms"] for row in table.tried if row["chosen"]), None)
    rows = []
    for row in table.tried:
        cost = "does not fit" if row["plan_ms"] is None else f"{row['plan_ms']:.3f} ms"
        more = "" if None in (row["plan_ms"], kept) or row["chosen"] else f"  {row['plan_ms'] - kept:+.3f}"
        rows.append(
            ["*" * row["chosen"], clip(row["what"], 34), str(row["shards"]), f"{row['shard_ms']:.3f} ms", human(row["bytes"]), cost + more]
        )
    head = ["", "tried", "shards", "slowest shard", "memory", "the plan's critical rank"]
    yield from (f"  {line}" for line in in_columns(head, rows, (0, 1, 5), width=WIDTH - 2))
    yield ""
