"""The view of a plan: summary of the cluster, placement of each table, and explanations."""

import fnmatch
import itertools
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from dmoe.errors import UserError, nearest, one_line
from dmoe.model.budget.sizes import human, left
from dmoe.names import clip
from dmoe.report.document import WIDTH, Block, Bullets, Document, Note, Table, in_columns
from dmoe.sharding.plan.report.plan_stats import Figures, RankFigures, TableFigures
from dmoe.sharding.plan.report.show_page import explorer
from dmoe.sharding.plan.report.show_words import bar, compact, histogram, kernel_word, over_bound, ranks_in
from dmoe.sharding.plan.sharders import CUT_ROWS
from dmoe.sharding.planner.cost.table_use import told

FOLD_ABOVE = 32
"""Up to this number, all ranks are listed; for more, only the slowest, the median, the fastest and the fullest."""
NOTHING_TRIED = "the plan keeps no alternatives (it was made or edited without them); plan again to see them"


@dataclass(frozen=True)
class View:
    """Selects the parts of a plan to show.

    Attributes:
        sort: `size`, `time` or `sent`, the largest first, or `name`.
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


def plan_document(figures: Figures, view: View = View(), title: str = "A sharding plan", page: bool = False) -> Document:
    """What `dmoe plan show` prints and writes.

    Args:
        page: with the part to explore, which the HTML alone has; to make it takes seconds for a large plan.

    Raises:
        UserError: no table matches the pattern, or a rank does not exist.
    """
    tables = chosen_tables(figures, view)
    shown = tables[: view.top]
    blocks: list[Block] = []
    if view.why:
        blocks += [block for table in matching(figures, view.why, "--why", tables)[: view.top] for block in _why(table)]
    else:
        blocks += [Note("\n".join(headline(figures)), "code", "text"), *_ranks(figures, view.ranks)]
        blocks.append(_tables(shown, tables[len(shown) :], figures.cluster.ranks))
    if page:
        blocks += [summary(figures), Note(PREDICTED, "faint", "page"), explorer([(figures, shown, "")])]
    return Document(title, blocks)


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


PREDICTED = "Predicted from the file's shards by TorchRec's estimators; weights and optimizer state are exact."


def summary(figures: Figures) -> Bullets:
    """The headline for a page, with the tables that take most of the critical rank's time."""
    shares = figures.prediction.time[:, figures.critical]
    most = [f"{figures.tables[index].name} {shares[index]:.3f} ms" for index in np.argsort(-shares, kind="stable")[:3] if shares[index] > 0]
    return Bullets([*headline(figures), f"most of the critical rank's time: {', '.join(most) or 'nothing'}"], "page")


def headline(figures: Figures) -> Iterator[str]:
    """Lines of at most 100 columns on cluster, tables, and the slowest and fullest rank."""
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
    if cluster.without:
        left_out = f"left out, without tables: rank{'s' * (len(cluster.without) > 1)} {', '.join(map(str, cluster.without))}"
        yield clip(left_out, WIDTH)
    if cluster.memory_of:
        yield clip(f"other memory: {', '.join(f'rank {rank} {human(size)}' for rank, size in cluster.memory_of)}", WIDTH)


def _ranks(figures: Figures, asked: str) -> Iterator[Block]:
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
        lines = itertools.zip_longest(left, right, fillvalue="")
        yield Note("\n".join(f"{one:<47}   {other}".rstrip() for one, other in lines), "code", "text")
        slowest = sorted(ranks, key=lambda rank: (-rank.time_ms, rank.rank != figures.critical, rank.rank))
        telling = {**{rank.rank: "" for rank in slowest[:4]}, slowest[len(slowest) // 2].rank: "median", slowest[-1].rank: "fastest"}
        labels = {**telling, figures.fullest.rank: "fullest", figures.critical: "critical"}
        if figures.critical == figures.fullest.rank:
            labels[figures.critical] = "critical, fullest"
        shown = [rank for rank in slowest if rank.rank in labels]
    head = ["rank", "taken", "of memory", "free", "lookups", "sent", "predicted", ""]
    yield Table(head, [_rank(rank, figures, labels.get(rank.rank, "")) for rank in shown], words=(2, 7), only="text", rule=False)
    more = "" if asked or total <= FOLD_ABOVE else f"\n{len(shown)} of {total:,} ranks; --ranks 0-7 shows others, --ranks all all"
    yield Note(f"= kept for all else, # tables and their buffers, . free; sent: a step, to other ranks{more}", "code", "text")


def _rank(rank: RankFigures, figures: Figures, label: str) -> list[str]:
    memory = bar(((rank.reserved, "="), (rank.memory, "#")), figures.cluster.memory_on(rank.rank), 10, ".")
    time = bar(((rank.time_ms, "#"),), figures.time_ms, 12, " ")
    label = "left out" if rank.rank in figures.cluster.without else label
    label = "DOES NOT FIT" if rank.free < 0 or rank.host_free < 0 else label
    taken, free, sent = human(rank.reserved + rank.memory), left(rank.free), human(rank.sent)
    return [str(rank.rank), taken, memory, free, f"{rank.lookup_share:.2%}", sent, f"{rank.time_ms:.3f} ms", f"{time} {label}"]


def _tables(tables: Sequence[TableFigures], others: Sequence[TableFigures], ranks: int) -> Table:
    """One row a table, and one for all others together."""
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
    room = WIDTH - 2 - max(map(len, in_columns(head, rows, (0, 3, 4), width=WIDTH - 11)))
    rest = [[f"and {len(others):,} more", "", human(sum(table.size for table in others)), *[""] * 5]] if others else []
    held = [[*row, compact(table.ranks, ranks, room)] for row, table in zip(rows, tables, strict=True)]
    return Table([*head, "ranks"], held + rest, words=(0, 3, 4, 7), only="text", rule=False)


def _why(table: TableFigures) -> Iterator[Block]:
    cut = f", {table.shards} shards" if table.sharding in CUT_ROWS else ""
    said = [told(table.use) if table.use else "", table.decided if table.tried else NOTHING_TRIED]
    lines = [f"{table.name}: {table.rows:,} x {table.columns}, {human(table.size)} with state, {table.sharding}{cut}"]
    lines = [clip(lines[0], WIDTH), *(line for text in said for line in textwrap.wrap(f"  {text}", WIDTH, subsequent_indent="  "))]
    yield Note("\n".join(lines), "code", "text")
    kept = next((row["plan_ms"] for row in table.tried if row["chosen"]), None)
    rows = []
    for row in table.tried:
        cost = "does not fit" if row["plan_ms"] is None else f"{row['plan_ms']:.3f} ms"
        more = "" if None in (row["plan_ms"], kept) or row["chosen"] else f"  {row['plan_ms'] - kept:+.3f}"
        rows.append(
            ["*" * row["chosen"], clip(row["what"], 34), str(row["shards"]), f"{row['shard_ms']:.3f} ms", human(row["bytes"]), cost + more]
        )
    head = ["", "tried", "shards", "slowest shard", "memory", "the plan's critical rank"]
    yield Table(head, rows, words=(0, 1, 5), only="text", rule=False)
