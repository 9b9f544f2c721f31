"""One plan, or two side by side, as a self-contained interactive page: search and sort tables, a heat map, explanations.

The page contains its data as JSON, which its script reads (explore/*.js). It loads nothing; its content security policy forbids that.
"""

from collections.abc import Sequence
from importlib import resources
from typing import Any

import numpy as np

from dmoe.json_text import format_json
from dmoe.model.budget.sizes import human, left
from dmoe.report.document.html import frame, paragraph, read
from dmoe.sharding.plan.report.diff import Difference
from dmoe.sharding.plan.report.plan_stats import Figures, TableFigures
from dmoe.sharding.plan.report.show import unequal
from dmoe.sharding.plan.report.show_words import compact, kernel_word
from dmoe.sharding.plan.report.summary import over_bound
from dmoe.sharding.planner.cost.table_use import told

SCRIPTS = ("data.js", "heat.js", "lists.js", "main.js")
FEW = 24
"""Up to this number, the panel of a table lists its ranks one by one."""
HELP = (
    "Click a table to see its candidates and why this one was chosen, a rank to see what it holds. / finds a table, Escape closes a panel."
)


def page(figures: Figures, tables: Sequence[TableFigures], title: str) -> str:
    """The HTML of the page.

    Args:
        tables: the tables to show, in this order; the figures of ranks include all tables.
    """
    return _document(title, _summary(figures), {"plans": [_plan(figures, tables, "")]})


def diff_page(found: Difference, name_a: str, name_b: str, title: str) -> str:
    """The HTML of the page that compares two plans."""
    changes = {one.name: {"what": one.what, "moved": one.moved} for one in found.changed}
    plans = [_plan(figures, figures.tables, label) for figures, label in ((found.a, f"A {name_a}"), (found.b, f"B {name_b}"))]
    told = [paragraph(f"{label}:") + "".join(_summary(one)[:-1]) for one, label in ((found.a, f"A {name_a}"), (found.b, f"B {name_b}"))]
    told += [paragraph(note) for note in found.notes]
    told.append(paragraph(f"{len(found.changed):,} tables lie otherwise: {human(found.moved)} would go to other ranks, with state."))
    return _document(title, [*told, _summary(found.a)[-1]], {"plans": plans, "changes": changes})


def _document(title: str, summary: Sequence[str], data: dict[str, Any]) -> str:
    folder = resources.files("dmoe.sharding.plan.report") / "explore"
    script = "\n".join([read("page.js"), *((folder / name).read_text(encoding="utf-8") for name in SCRIPTS)])
    style = read("page.css") + (folder / "style.css").read_text(encoding="utf-8")
    options = "".join(f"<option value='{key}'>{word}</option>" for key, word in METRICS.items())
    body = f"""{"".join(summary)}
<noscript><p class="bad">The lists and drawings below need JavaScript; dmoe plan show prints them as text.</p></noscript>
<div class="bar"><label>Find a table<input id="find" type="search" autocomplete="off"></label>
<label>Heat-map shows<select id="metric">{options}</select></label><span id="found" role="status"></span></div>
{paragraph(HELP, "faint")}<h2>Ranks by tables</h2><div id="map"></div><h2>Tables</h2><div id="tables"></div>
<h2>Ranks</h2><div id="bars"></div><div id="ranks"></div>
<aside id="panel" hidden aria-labelledby="chosen"><button type="button">Close</button>
<h2 id="chosen" tabindex="-1"></h2><div></div></aside>"""
    # ASCII only, so that it does not depend on the encoding.
    return frame(title, body, script, style, format_json(data, separators=(",", ":")))


METRICS = {"time": "predicted time", "memory": "memory with state and buffers", "sent": "bytes sent"}


def _summary(figures: Figures) -> list[str]:
    cluster, critical, fullest = figures.cluster, figures.ranks[figures.critical], figures.fullest
    shares = figures.prediction.time[:, figures.critical]
    heaviest = [
        f"{figures.tables[index].name} {shares[index]:.3f} ms" for index in np.argsort(-shares, kind="stable")[:3] if shares[index] > 0
    ]
    size = sum(one.size for one in figures.tables)
    over = over_bound(figures.bound_ms, figures.time_ms)
    fits = " free." if fullest.free >= 0 else ". It does not fit."
    return [
        paragraph(
            f"{len(figures.tables):,} tables, {human(size)} with optimizer state ({figures.optimizer}), on {cluster.name}:"
            f" {cluster.ranks:,} ranks, global batch {figures.batch_size:,}, embeddings sent in {figures.comm_precision}."
        ),
        paragraph(
            f"Critical rank {critical.rank}: {critical.time_ms:.3f} ms a step predicted for the tables, {figures.imbalance:.2f} times the"
            f" mean; most of it {', '.join(heaviest) or 'nothing'}. Fullest rank {fullest.rank}:"
            f" {human(fullest.memory + fullest.reserved)} of {human(cluster.memory_on(fullest.rank))} taken, {left(fullest.free)}{fits}"
        ),
        *([paragraph(f"{over[0].upper()}{over[1:]}: no plan takes less than {figures.bound_ms:.3f} ms.")] if over else []),
        *(paragraph(f"{line[0].upper()}{line[1:]}.") for line in unequal(cluster)),
        paragraph("Predicted from the file's shards by TorchRec's estimators; weights and optimizer state are exact.", "faint"),
    ]


class _Once(dict[Any, int]):
    """Interns values: value -> index in a list of distinct values, since equal tables have equal texts and candidates."""

    def at(self, value: Any) -> int:
        return self.setdefault(value, len(self))


def _plan(figures: Figures, tables: Sequence[TableFigures], label: str) -> dict[str, Any]:
    """The data for explore/data.js: by column, with each distinct text stored once."""
    cluster, words, tried = figures.cluster, _Once(), _Once()
    place = {name: index for index, name in enumerate(figures.prediction.tables)}
    columns: dict[str, list[Any]] = {
        "name": [one.name for one in tables],
        "rows": [one.rows for one in tables],
        "columns": [one.columns for one in tables],
        "weights": [one.weights for one in tables],
        "state": [one.state for one in tables],
        "memory": [one.memory for one in tables],
        "sent": [one.sent for one in tables],
        "time": [one.time_ms for one in tables],
        "shards": [one.shards for one in tables],
        "sharding": [words.at(one.sharding) for one in tables],
        "kernel": [words.at(kernel_word(one.kernel)) for one in tables],
        "decided": [words.at(one.decided) for one in tables],
        "tried": [tried.at(tuple(_tried(row, words) for row in one.tried)) for one in tables],
        "held": [len(one.ranks) for one in tables],
        "where": [compact(one.ranks, cluster.ranks, 60) for one in tables],
        "at": [_runs(one.ranks) if len(one.ranks) <= FEW else "" for one in tables],
        "use": [told(one.use) if one.use else "" for one in tables],
        "cells": [_cells(figures, place[one.name]) for one in tables],
    }
    ranks = figures.ranks
    return {
        "label": label,
        "ranks": cluster.ranks,
        "local": cluster.ranks_a_node,
        "gpu": cluster.device.kind == "cuda",
        "critical": figures.critical,
        "fullest": figures.fullest.rank,
        "without": list(cluster.without),
        "capacity": [int(cluster.memory_on(rank)) for rank in range(cluster.ranks)],
        "rank": {
            "time": [round(one.time_ms, 6) for one in ranks],
            "share": [one.lookup_share for one in ranks],
            **{name: [getattr(one, name) for one in ranks] for name in RANK},
        },
        "parts": [[name, [round(float(value), 6) for value in values]] for name, values in figures.prediction.parts.items()],
        "tables": columns,
        "words": list(words),
        "tried": list(tried),
    }


RANK = ("memory", "reserved", "free", "host", "weights", "state", "sent", "tables")


def _tried(row: dict[str, Any], words: _Once) -> tuple[Any, ...]:
    return words.at(row["what"]), row["shards"], row["shard_ms"], int(row["bytes"]), row["plan_ms"], int(row["chosen"])


def _cells(figures: Figures, index: int) -> list[list[Any]]:
    """The cells of a table, grouped into classes of equal values: [ranks, ms, bytes of memory, bytes sent, bytes of weights].

    The first class covers all ranks that are in no other class. A column-wise table has two or three classes on a thousand ranks.
    """
    grids = figures.prediction
    values = np.stack(
        [
            np.round(grids.time[index], 6),
            np.round(grids.memory[index] + grids.host[index]),
            np.round(grids.sent[index]),
            np.round(grids.weights[index]),
        ]
    )
    # After this sort, equal columns are adjacent; faster than np.unique for rows.
    order = np.lexsort(values)
    starts = np.flatnonzero(np.r_[True, (np.diff(values[:, order]) != 0).any(0)])
    groups = sorted(np.split(order, starts[1:]), key=lambda group: (-len(group), group.min()))
    return [
        ["" if not number else _runs(np.sort(group).tolist()), float(values[0, group[0]]), *map(int, values[1:, group[0]])]
        for number, group in enumerate(groups)
    ]


def _runs(ranks: Sequence[int]) -> str:
    """Formats sorted ranks as `0-7,12`."""
    if not len(ranks):
        return ""
    held = np.asarray(ranks)
    starts = np.flatnonzero(np.r_[True, np.diff(held) != 1])
    ends = np.r_[starts[1:], len(held)] - 1
    return ",".join(f"{held[a]}" if a == b else f"{held[a]}-{held[b]}" for a, b in zip(starts, ends, strict=True))
