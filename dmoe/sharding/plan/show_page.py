"""A plan as one self-contained page: heat-maps of ranks by tables, each rank's memory and time, every table's reasons."""

import html
from collections.abc import Sequence
from typing import Any

import numpy as np

from dmoe.model.sizes import human, left
from dmoe.names import clip
from dmoe.report.html import Cell, document, paragraph, table
from dmoe.report.plots import COLOURS, INK, draw
from dmoe.sharding.plan.plan_stats import Figures, TableFigures
from dmoe.sharding.plan.show_words import compact, kernel_word
from dmoe.sharding.planner.enumerator import Vector

ROWS = 60
"""Tables that have a row of their own in the heat-maps; the smaller ones share the last."""


def page(figures: Figures, tables: Sequence[TableFigures], title: str) -> str:
    """The page's text.

    Args:
        tables: those that are listed, in their order; the drawings show all.
    """
    drawn = (memory_bars(figures), time_bars(figures), *heat_maps(figures))
    parts = [
        *_summary(figures),
        "<h2>Ranks</h2>",
        *(f"<figure class='scroll'>{svg}</figure>" for svg in drawn[:2]),
        "<h2>Ranks by tables</h2>",
        paragraph("White cells hold nothing of the table. The dashed line is the critical rank.", "faint"),
        *(f"<figure class='scroll'>{svg}</figure>" for svg in drawn[2:]),
        "<h2>Tables</h2>",
        _listed(tables, figures.cluster.ranks),
        "<h2>Why</h2>",
        paragraph(
            "What else was tried for a table, and what the plan's critical rank would have taken, all else staying where it is.", "faint"
        ),
        *(_why(one) for one in tables),
    ]
    return document(title, parts)


def _summary(figures: Figures) -> list[str]:
    cluster, critical, fullest = figures.cluster, figures.ranks[figures.critical], figures.fullest
    shares = figures.prediction.time[:, figures.critical]
    heaviest = [
        f"{figures.tables[index].name} {shares[index]:.3f} ms" for index in np.argsort(-shares, kind="stable")[:3] if shares[index] > 0
    ]
    size = sum(one.size for one in figures.tables)
    fits = " free." if fullest.free >= 0 else ". It does not fit."
    return [
        paragraph(
            f"{len(figures.tables):,} tables, {human(size)} with optimiser state ({figures.optimizer}), on {cluster.name}:"
            f" {cluster.ranks:,} ranks, global batch {figures.batch_size:,}, embeddings sent in {figures.comm_precision}."
        ),
        paragraph(
            f"Critical rank {critical.rank}: {critical.time_ms:.3f} ms a step predicted for the tables, {figures.imbalance:.2f} times the"
            f" mean; most of it {', '.join(heaviest) or 'nothing'}. Fullest rank {fullest.rank}:"
            f" {human(fullest.memory + fullest.reserved)} of {human(cluster.memory)} taken, {left(fullest.free)}{fits}"
        ),
        paragraph("Predicted from the file's shards by TorchRec's estimators; weights and optimiser state are exact.", "faint"),
    ]


def memory_bars(figures: Figures) -> str:
    """What is kept free of tables, weights with state, buffers, up to the memory of a rank."""
    held = np.array([[rank.reserved, rank.weights + rank.state, rank.memory - rank.weights - rank.state] for rank in figures.ranks]).T
    # Tables by UVM have their weights in the host's memory.
    held = np.maximum(held, 0) / 1e9
    names = ("kept for the rest", "weights and state", "buffers")
    return _bars(figures, "Memory", "GB", held, names, figures.cluster.memory / 1e9)


def time_bars(figures: Figures) -> str:
    """Lookup and exchange, forward and backward."""
    parts = figures.prediction.parts
    return _bars(figures, "Predicted time of a step's tables", "ms", np.array(list(parts.values())), tuple(parts), None)


def _bars(figures: Figures, title: str, unit: str, parts: Vector, names: Sequence[str], limit: float | None) -> str:
    edges = np.arange(figures.cluster.ranks + 1) - 0.5
    x = np.repeat(edges, 2)[1:-1]

    def paint(axes: Any) -> None:
        below = np.zeros(len(x))
        for number, (name, values) in enumerate(zip(names, parts, strict=True)):
            above = below + np.repeat(values, 2)
            axes.fill_between(x, below, above, color=COLOURS[(7, 0, 1, 2, 3)[number + (limit is None)]], linewidth=0, label=name)
            below = above
        if limit is not None and below.max() > limit / 20:
            axes.axhline(limit, color=COLOURS[3], linewidth=1, label="a rank's memory")
        _critical(axes, figures, below.max())
        axes.set(title=title, xlabel="rank", ylabel=unit, xlim=(edges[0], edges[-1]), ylim=(0, max(limit or 0, below.max() or 1) * 1.1))
        axes.grid(axis="y")
        axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)

    return draw(11, 3, paint)


def _critical(axes: Any, figures: Figures, top: float) -> None:
    axes.axvline(figures.critical, color=INK, linewidth=0.8, linestyle="--")
    left = figures.critical > figures.cluster.ranks * 0.8
    axes.annotate(
        f"critical rank {figures.critical}",
        (figures.critical, top),
        xytext=(-4 if left else 4, 2),
        textcoords="offset points",
        ha="right" if left else "left",
        fontsize=8,
    )


def heat_maps(figures: Figures) -> tuple[str, str]:
    """Milliseconds and bytes of every table on every rank, the largest tables first."""
    order = sorted(range(len(figures.tables)), key=lambda index: (-figures.tables[index].size, figures.tables[index].name))
    prediction = figures.prediction
    return (
        _heat_map(figures, "Predicted time, ms", prediction.time, order, False),
        _heat_map(figures, "Memory with state and buffers, GB", (prediction.memory + prediction.host) / 1e9, order, True),
    )


def _heat_map(figures: Figures, title: str, grid: Vector, order: Sequence[int], logarithmic: bool) -> str:
    own = list(order) if len(order) <= ROWS + 1 else list(order[:ROWS])
    rows, names = [grid[index] for index in own], [clip(figures.tables[index].name, 18) for index in own]
    if len(own) < len(order):
        rows.append(grid[list(order[ROWS:])].sum(0))
        names.append(f"{len(order) - ROWS:,} smaller")
    values = np.ma.masked_less_equal(np.array(rows), 0)

    def paint(axes: Any) -> None:
        from matplotlib.colors import LogNorm, Normalize

        low, high = (float(values.min()), float(values.max())) if values.count() else (0.1, 1.0)
        norm = LogNorm(low, max(high, low * 1.01)) if logarithmic else Normalize(0, high)
        axes.patch.set(facecolor="white", alpha=1.0)
        image = axes.imshow(values, norm=norm, cmap="viridis_r", aspect="auto", interpolation="nearest")
        axes.figure.colorbar(image, ax=axes, pad=0.01)
        axes.axvline(figures.critical, color="black", linewidth=0.8, linestyle="--")
        axes.set_yticks(range(len(names)), names, fontsize=7, parse_math=False)
        axes.set(title=f"{title}; critical rank {figures.critical}", xlabel="rank")
        axes.locator_params(axis="x", integer=True)

    return draw(11, 1.3 + 0.17 * len(names), paint)


def _listed(tables: Sequence[TableFigures], ranks: int) -> str:
    head = [
        "table",
        "rows x columns",
        "weights",
        "with state",
        "memory in all",
        "sharding",
        "kernel",
        "slowest shard",
        "sent a step",
        "ranks",
    ]
    return table(
        head,
        [
            [
                one.name,
                f"{one.rows:,} x {one.columns}",
                human(one.weights),
                human(one.size),
                human(one.memory),
                one.sharding,
                kernel_word(one.kernel),
                f"{one.time_ms:.3f} ms",
                human(one.sent),
                Cell(compact(one.ranks, ranks, 400), "words"),
            ]
            for one in tables
        ],
    )


def _why(one: TableFigures) -> str:
    head = html.escape(f"{one.name}: {one.sharding}, {human(one.size)}")
    if not one.tried:
        return f"<details><summary>{head}</summary>{paragraph('The plan keeps no alternatives.', 'faint')}</details>"
    kept = next((row["plan_ms"] for row in one.tried if row["chosen"]), None)
    rows = []
    for row in one.tried:
        does_not = row["plan_ms"] is None
        cost = Cell("does not fit", "bad") if does_not else f"{row['plan_ms']:.3f} ms"
        more = "" if does_not or kept is None or row["chosen"] else f"{row['plan_ms'] - kept:+.3f}"
        what = Cell(f"{row['what']} (chosen)", "good") if row["chosen"] else row["what"]
        rows.append([what, f"{row['shards']:,}", f"{row['shard_ms']:.3f} ms", human(row["bytes"]), cost, more])
    listed = table(["tried", "shards", "slowest shard", "memory in all", "the plan's critical rank", ""], rows)
    return f"<details><summary>{head}</summary>{paragraph(one.decided)}{listed}</details>"
