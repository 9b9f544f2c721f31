"""A sweep as one self-contained page: its points in a table, and step time, throughput, cost and memory over the number of ranks."""

from collections.abc import Callable, Sequence
from typing import Any

from dmoe.report.html import Cell, bullets, document, figures, paragraph, table
from dmoe.report.plots import COLOURS, INK, draw, literal
from dmoe.sharding.planner.advice.sweep import KNEE, Point, in_words, knees
from dmoe.sharding.planner.cost.step_time import ASSUMED, Step

MEASURES: tuple[tuple[str, str, Callable[[Step], float], bool], ...] = (
    ("Step time", "ms a step", lambda step: step.ms, True),
    ("Throughput", "samples a second", lambda step: step.samples_per_second, True),
    ("Cost", "USD for 1e9 samples", lambda step: step.usd_a_billion, False),
    ("Memory of the fullest rank", "GB of tables, host memory included", lambda step: (step.memory + step.host_memory) / 1e9, False),
)


def page(points: Sequence[Point], title: str) -> str:
    """The page's text."""
    found = knees(points)
    fitting = [point for point in points if point.step]
    parts = [paragraph(f"{len(points)} points planned, {len(fitting)} fit. {ASSUMED}", "faint")]
    if fitting:
        parts += ["<h2>Over the number of ranks</h2>", figures([_drawn(fitting, *measure) for measure in MEASURES])]
    if found:
        parts += [
            "<h2>Where more ranks stop helping</h2>",
            paragraph(
                f"In brackets the samples a second and rank, against the best of the series; the knee is where they fall under {KNEE:.0%}."
            ),
            bullets([in_words(knee) for knee in found]),
        ]
    head = ["cluster", "batch", "experts", "layout", "step ms", "tables", "dense", "samples/s", "memory", "of room", "host", "USD/1e9", ""]
    parts += ["<h2>All points</h2>", table(head, [_row(point) for point in points])]
    return document(title, parts)


def _row(point: Point) -> list[str]:
    row = [point.cluster.name, f"{point.batch_size:,}", str(point.experts), point.layout]
    if (step := point.step) is None:
        return [*row, *["-"] * 8, Cell(point.problem, "words")]
    return [
        *row,
        f"{step.ms:.2f}",
        f"{step.tables_ms:.2f}",
        f"{step.dense_ms:.2f}",
        f"{step.samples_per_second:,.0f}",
        f"{step.memory / 1e9:.1f} GB",
        f"{step.memory / step.room:.0%}" if step.room else "-",
        f"{step.host_memory / 1e9:.1f} GB" if step.host_memory else "-",
        f"{step.usd_a_billion:,.2f}",
        "",
    ]


def _drawn(points: Sequence[Point], title: str, unit: str, measure: Callable[[Step], float], logarithmic: bool) -> str:
    series = list(dict.fromkeys(point.series for point in points))
    names = _names(series)
    ranks = sorted({point.cluster.ranks for point in points})

    def paint(axes: Any) -> None:
        for index, (key, name) in enumerate(zip(series, names, strict=True)):
            mine = sorted((p.cluster.ranks, measure(p.step)) for p in points if p.series == key and p.step)
            axes.plot(*zip(*mine, strict=True), marker="o", markersize=4, color=COLOURS[index % len(COLOURS)], label=literal(name))
        axes.set_xscale("log", base=2)
        axes.set_xticks(ranks, [str(rank) for rank in ranks])
        axes.minorticks_off()
        if logarithmic:
            axes.set_yscale("log")
        else:
            axes.set_ylim(bottom=0)
        axes.set(title=title, xlabel="ranks", ylabel=unit)
        axes.grid()
        if len(series) > 1:
            axes.legend(fontsize=7, labelcolor=INK)

    return draw(6.2, 3.9, paint)


def _names(series: Sequence[tuple[str, int, int, str]]) -> list[str]:
    """What tells the series apart, and no more."""
    differing = [len({key[i] for key in series}) > 1 for i in range(4)]
    words = [[key[0], f"batch {key[1]:,}", f"{key[2]} expert{'s' * (key[2] > 1)}", key[3]] for key in series]
    return [", ".join(word for word, differs in zip(of, differing, strict=True) if differs) or of[0] for of in words]
