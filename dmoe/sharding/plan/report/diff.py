"""Compares two plans: the tables that change, the bytes that move, and the effect on the slowest and fullest ranks."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from dmoe.model.budget.sizes import human, left
from dmoe.names import clip
from dmoe.report.document import WIDTH, Block, Document, Heading, Note, Table
from dmoe.sharding.plan.migration import moved, rectangles
from dmoe.sharding.plan.report.plan_stats import Figures, TableFigures, figures_of
from dmoe.sharding.plan.report.show import PREDICTED, summary
from dmoe.sharding.plan.report.show_page import explorer
from dmoe.sharding.plan.report.show_words import compact, kernel_word


@dataclass(frozen=True)
class Change:
    """A table that is sharded or placed differently in the second plan. `moved`: bytes over all ranks; `what`: kind of change."""

    name: str
    what: str
    before: TableFigures
    after: TableFigures
    moved: int


@dataclass(frozen=True)
class Difference:
    """Comparison of two plans A and B.

    Attributes:
        a, b: figures of the two plans.
        notes: sentences on differences between the models or clusters of the two plans.
        only_a, only_b: tables that only one plan has.
        resized: tables with different sizes; their bytes are not compared.
        changed: tables that changed, the most moved bytes first.
        received: [ranks of b] bytes that each rank would receive.
    """

    a: Figures
    b: Figures
    notes: tuple[str, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    resized: tuple[str, ...]
    changed: tuple[Change, ...]
    received: tuple[int, ...]

    @property
    def moved(self) -> int:
        return sum(self.received)

    @property
    def same(self) -> bool:
        return not (self.notes or self.only_a or self.only_b or self.resized or self.changed)


def difference(plan_a: Mapping[str, Any], plan_b: Mapping[str, Any], where_a: str, where_b: str) -> Difference:
    """Compares the data of two plan files, also for different models or clusters."""
    a, b = figures_of(plan_a, where_a), figures_of(plan_b, where_b)
    tables_a, tables_b = plan_a["tables"], plan_b["tables"]
    both = [name for name in tables_a if name in tables_b]
    resized = tuple(name for name in both if tables_a[name]["size"] != tables_b[name]["size"])
    told_a, told_b = ({table.name: table for table in figures.tables} for figures in (a, b))
    received = np.zeros(b.cluster.ranks, np.int64)
    changed = []
    for name in both:
        if name in resized:
            continue
        before, after = tables_a[name], tables_b[name]
        what = _what(before, after, a.cluster.ranks, b.cluster.ranks)
        if not what:
            continue
        change = moved(before, after, (a.cluster.ranks, b.cluster.ranks), (a.optimizer, b.optimizer))
        received += change.received
        changed.append(Change(name, what, told_a[name], told_b[name], change.bytes))
    return Difference(
        a,
        b,
        tuple(_notes(a, b)),
        tuple(name for name in tables_a if name not in tables_b),
        tuple(name for name in tables_b if name not in tables_a),
        resized,
        tuple(sorted(changed, key=lambda change: (-change.moved, change.name))),
        tuple(int(value) for value in received),
    )


def _what(before: Mapping[str, Any], after: Mapping[str, Any], ranks_a: int, ranks_b: int) -> str:
    if before["sharding_type"] != after["sharding_type"]:
        return "resharded"
    if before["shards"] is None:
        return "" if ranks_a == ranks_b else "copied"
    old, new = rectangles(before, ranks_a), rectangles(after, ranks_b)
    cut_old, cut_new = ({tuple(shard[:4]) for shard in some.tolist() if shard[2] and shard[3]} for some in (old, new))
    if cut_old != cut_new:
        return "recut"
    placed_old, placed_new = ({tuple(shard) for shard in some.tolist() if shard[2] and shard[3]} for some in (old, new))
    if placed_old != placed_new:
        return "moved"
    return "" if before["compute_kernel"] == after["compute_kernel"] else "kernel"


def _notes(a: Figures, b: Figures) -> Iterator[str]:
    if a.cluster != b.cluster:
        yield f"clusters differ: {a.cluster.name} and {b.cluster.name}; times are each for its own, and rank numbers are taken to stay"
    if a.optimizer != b.optimizer:
        yield f"optimizers differ: {a.optimizer} and {b.optimizer}; state cannot be carried over and is not counted as moved"
    if a.batch_size != b.batch_size:
        yield f"global batches differ: {a.batch_size:,} and {b.batch_size:,}; times are each for its own"
    if a.comm_precision != b.comm_precision:
        yield f"embeddings are sent in {a.comm_precision} and {b.comm_precision}; times and bytes sent are each for its own"


def as_data(found: Difference) -> dict[str, Any]:
    """The comparison as plain data, for `--json`."""
    return {
        "same": found.same,
        "notes": list(found.notes),
        "only_a": list(found.only_a),
        "only_b": list(found.only_b),
        "resized": list(found.resized),
        "moved_bytes": found.moved,
        "received": list(found.received),
        "changed": [
            {"name": c.name, "what": c.what, "moved_bytes": c.moved, "before": _brief(c.before), "after": _brief(c.after)}
            for c in found.changed
        ],
        "a": _brief_figures(found.a),
        "b": _brief_figures(found.b),
    }


def _brief(table: TableFigures) -> dict[str, Any]:
    return {key: value for key, value in asdict(table).items() if key not in ("name", "decided", "tried", "use")}


def _brief_figures(figures: Figures) -> dict[str, Any]:
    return {key: value for key, value in figures.as_json().items() if key not in ("ranks", "tables")}


def diff_document(found: Difference, name_a: str, name_b: str, top: int | None = None, page: bool = False) -> Document:
    """What `dmoe plan diff` prints and writes.

    Args:
        top: number of changed tables in the text; None for all.
        page: with the part to explore, which the HTML alone has.
    """
    plans = [(found.a, f"A {name_a}"), (found.b, f"B {name_b}")]
    absent = (("only in A", found.only_a), ("only in B", found.only_b), ("of another size in B", found.resized))
    names = [clip(f"{len(names):,} tables {title}: {', '.join(names)}", WIDTH) for title, names in absent if names]
    told = f"no {'other ' * bool(found.resized)}table lies otherwise"
    if found.changed:
        most = max(range(len(found.received)), key=lambda rank: found.received[rank])
        told = (
            f"{len(found.changed):,} tables lie otherwise: {human(found.moved)} would go to other ranks, optimizer state included;"
            f" rank {most} receives most, {human(found.received[most])}"
        )
    blocks: list[Block] = []
    for one, name in plans:
        blocks += [Heading(name, 3), summary(one)]
    heads = [clip(f"{name}: {one.cluster.name}, {len(one.tables):,} tables", WIDTH) for one, name in plans]
    blocks += [Note("\n".join(heads), "code", "text"), *map(Note, found.notes)]
    blocks += [Table(["", "A", "B", "change"], _worst(found), words=(0, 3), rule=False), *map(Note, [*names, told])]
    blocks.append(_changes(found.changed[:top], found.changed[len(found.changed[:top]) :], found.a.cluster.ranks, found.b.cluster.ranks))
    if page:
        changes = {one.name: {"what": one.what, "moved": one.moved} for one in found.changed}
        blocks += [Note(PREDICTED, "faint", "page"), explorer([(one, one.tables, name) for one, name in plans], changes)]
    return Document("Two sharding plans", blocks)


def _worst(found: Difference) -> list[list[str]]:
    """Rows of the table that compares both plans: title, A, B, change."""
    a, b = found.a, found.b

    def row_of_bytes(title: str, first: float, second: float) -> list[str]:
        return [title, human(first), human(second), f"{'+' * (second >= first)}{human(second - first)}"]

    share = f" ({b.time_ms / a.time_ms - 1:+.1%})" if a.time_ms else ""
    full = [figures.fullest.memory + figures.fullest.reserved for figures in (a, b)]
    return [
        ["critical rank", str(a.critical), str(b.critical), ""],
        ["its predicted time", f"{a.time_ms:.3f} ms", f"{b.time_ms:.3f} ms", f"{b.time_ms - a.time_ms:+.3f} ms{share}"],
        ["over the mean", f"{a.imbalance:.2f} x", f"{b.imbalance:.2f} x", f"{b.imbalance - a.imbalance:+.2f}"],
        row_of_bytes(f"fullest rank ({a.fullest.rank}, {b.fullest.rank})", full[0], full[1]),
        ["its free memory", left(a.fullest.free), left(b.fullest.free), "" if b.fullest.free >= 0 else "DOES NOT FIT"],
        row_of_bytes("most bytes sent a step", *(max(rank.sent for rank in figures.ranks) for figures in (a, b))),
    ]


def _changes(changes: Sequence[Change], others: Sequence[Change], ranks_a: int, ranks_b: int) -> Table:
    """One row a table, and one for all others together."""
    rows = [
        [clip(one.name, 20), one.what, human(one.moved), _place(one.before, ranks_a, 27), _place(one.after, ranks_b, 27)] for one in changes
    ]
    if others:
        rows.append([f"and {len(others):,} more", "", human(sum(change.moved for change in others)), "", ""])
    return Table(["table", "what", "moved", "A", "B"], rows, words=(0, 1, 3, 4), only="text", rule=False)


def _place(table: TableFigures, ranks: int, width: int) -> str:
    kernel = "" if table.kernel in ("fused", "dense") else f" {kernel_word(table.kernel)}"
    head = f"{table.sharding}{kernel}: "
    return clip(f"{head}{compact(table.ranks, ranks, width - len(head))}", width)
