"""The view of a sweep: its points in a table, and step time, throughput, cost and memory over the number of ranks."""

from collections.abc import Callable, Sequence

from dmoe.report.document import Bullets, Chart, Document, Figures, Heading, Note, Series, Table
from dmoe.sharding.planner.advice.sweep import KNEE, Point, in_words, knees
from dmoe.sharding.planner.cost.step_time import ASSUMED, Step

MEASURES: tuple[tuple[str, str, Callable[[Step], float], bool], ...] = (
    ("Step time", "ms a step", lambda step: step.ms, True),
    ("Throughput", "samples a second", lambda step: step.samples_per_second, True),
    ("Cost", "USD for 1e9 samples", lambda step: step.usd_a_billion, False),
    ("Memory of the fullest rank", "GB of tables, host memory included", lambda step: (step.memory + step.host_memory) / 1e9, False),
)
HEAD = ["cluster", "batch", "experts", "layout", "step ms", "tables", "dense", "samples/s", "memory", "host", "USD/1e9", "problem"]


def sweep_document(points: Sequence[Point], title: str, measured: str = "") -> Document:
    """The view of a sweep.

    Args:
        measured: one line on the lookups measured in the data set; empty if there is none.
    """
    fitting = [point for point in points if point.step]
    efficiency = f"In brackets the samples a second and rank, against the best of the series; the knee is where they fall under {KNEE:.0%}."
    found, rows = [in_words(knee) for knee in knees(points)], [_row(point) for point in points]
    problems = [f"{point.cluster.name}, batch {point.batch_size:,}: {point.problem}" for point in points if not point.step]
    return Document(
        title,
        [
            Note(f"{len(points)} points planned, {len(fitting)} fit.", only="page"),
            Heading("Over the number of ranks"),
            Figures([_drawn(fitting, *measure) for measure in MEASURES]),
            Heading("All points"),
            Table(HEAD[:-1], [row[:-1] for row in rows], words=(0, 3), only="text"),
            Bullets(problems, "text"),
            Table(HEAD, rows, words=(0, 3, 11), only="page"),
            Heading("Where more ranks stop helping"),
            Note(efficiency if found else "", only="page"),
            Bullets(found),
            Heading("What is assumed"),
            Note(measured),
            Note(ASSUMED),
        ],
    )


def _row(point: Point) -> list[str]:
    row = [point.cluster.name, f"{point.batch_size:,}", str(point.experts), point.layout]
    if (step := point.step) is None:
        return [*row, *["-"] * 7, point.problem]
    return [
        *row,
        f"{step.ms:.2f}",
        f"{step.tables_ms:.2f}",
        f"{step.dense_ms:.2f}",
        f"{step.samples_per_second:,.0f}",
        f"{step.memory / step.room if step.room else 0:.0%}",
        f"{step.host_memory / 1e9:.0f} GB" if step.host_memory else "-",
        f"{step.usd_a_billion:,.2f}",
        "",
    ]


def _drawn(points: Sequence[Point], title: str, unit: str, measure: Callable[[Step], float], logarithmic: bool) -> Chart:
    keys = list(dict.fromkeys(point.series for point in points))
    lines = []
    for key, name in zip(keys, _names(keys), strict=True):
        mine = sorted((point.cluster.ranks, measure(point.step)) for point in points if point.series == key and point.step)
        lines.append(Series(name, [ranks for ranks, _ in mine], [value for _, value in mine]))
    ranks = sorted({point.cluster.ranks for point in points})
    # A linear axis starts at 0, so that heights can be compared.
    levels = [] if logarithmic else [(0.0, "")]
    return Chart(title, "ranks", unit, lines, log_x=True, log_y=logarithmic, x_names=[(one, str(one)) for one in ranks], levels=levels)


def _names(series: Sequence[tuple[str, int, int, str]]) -> list[str]:
    """A short name for each series: only the values that differ between series."""
    differing = [len({key[i] for key in series}) > 1 for i in range(4)]
    words = [[key[0], f"batch {key[1]:,}", f"{key[2]} expert{'s' * (key[2] > 1)}", key[3]] for key in series]
    return [", ".join(word for word, differs in zip(of, differing, strict=True) if differs) or of[0] for of in words]
