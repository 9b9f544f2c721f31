"""The part of the page of a plan, or of two side by side, to explore: search and sort tables, a heat map, explanations (explore/*.js)."""

from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import numpy as np

from dmoe.json_text import format_json
from dmoe.report.document import Widget
from dmoe.sharding.plan.report.plan_stats import Figures, TableFigures
from dmoe.sharding.plan.report.show_words import compact, kernel_word, spans
from dmoe.sharding.planner.cost.table_use import told

SCRIPTS = ("data.js", "heat.js", "lists.js", "main.js")
FEW = 24
"""Up to this number, the panel of a table lists its ranks one by one."""
HELP = (
    "Click a table to see its candidates and why this one was chosen, a rank to see what it holds. / finds a table, Escape closes a panel."
)


def explorer(plans: Sequence[tuple[Figures, Sequence[TableFigures], str]], changes: Mapping[str, Any] | None = None) -> Widget:
    """The part of the page to explore.

    Args:
        plans: one, or two side by side: its figures, the tables to show in this order (the figures of ranks include all), its label.
        changes: table -> what changes from the first plan to the second.
    """
    folder = resources.files("dmoe.sharding.plan.report") / "explore"
    options = "".join(f"<option value='{key}'>{word}</option>" for key, word in METRICS.items())
    body = f"""<noscript><p class="bad">The lists and drawings below need JavaScript; dmoe plan show prints them as text.</p></noscript>
<div class="bar"><label>Find a table<input id="find" type="search" autocomplete="off"></label>
<label>Heat-map shows<select id="metric">{options}</select></label><span id="found" role="status"></span></div>
<p class="faint">{HELP}</p><h2>Ranks by tables</h2><div id="map"></div><h2>Tables</h2><div id="tables"></div>
<h2>Ranks</h2><div id="bars"></div><div id="ranks"></div>
<aside id="panel" hidden aria-labelledby="chosen"><button type="button">Close</button>
<h2 id="chosen" tabindex="-1"></h2><div></div></aside>"""
    script = "\n".join((folder / name).read_text(encoding="utf-8") for name in SCRIPTS)
    data = {"plans": [_plan(*one) for one in plans]} | ({} if changes is None else {"changes": changes})
    # ASCII only, so that it does not depend on the encoding.
    return Widget(body, script, (folder / "style.css").read_text(encoding="utf-8"), format_json(data, separators=(",", ":")))


METRICS = {"time": "predicted time", "memory": "memory with state and buffers", "sent": "bytes sent"}


class _Once(dict[Any, int]):
    """Interns values: value -> index in a list of distinct values, since equal tables have equal texts and candidates."""

    def at(self, value: Any) -> int:
        return self.setdefault(value, len(self))


def _plan(figures: Figures, tables: Sequence[TableFigures], label: str) -> dict[str, Any]:
    """The data for explore/data.js: by column, with each distinct text stored once."""
    cluster, words, tried = figures.cluster, _Once(), _Once()
    place = {name: index for index, name in enumerate(figures.prediction.tables)}
    columns: dict[str, list[Any]] = {
        **{name: [getattr(one, name) for one in tables] for name in ("name", "rows", "columns", "weights", "state", "memory", "sent")},
        "time": [one.time_ms for one in tables],
        "shards": [one.shards for one in tables],
        "sharding": [words.at(one.sharding) for one in tables],
        "kernel": [words.at(kernel_word(one.kernel)) for one in tables],
        "decided": [words.at(one.decided) for one in tables],
        "tried": [tried.at(tuple(_tried(row, words) for row in one.tried)) for one in tables],
        "held": [len(one.ranks) for one in tables],
        "where": [compact(one.ranks, cluster.ranks, 60) for one in tables],
        "at": [spans(one.ranks) if len(one.ranks) <= FEW else "" for one in tables],
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
        ["" if not number else spans(np.sort(group).tolist()), float(values[0, group[0]]), *map(int, values[1:, group[0]])]
        for number, group in enumerate(groups)
    ]
