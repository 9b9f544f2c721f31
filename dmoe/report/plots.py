"""Plots as SVG text that takes the page's ink, so that one page is read on light and on dark paper."""

import io
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from dmoe.names import clip, printable

INK = "#010203"
"""What matplotlib draws axes and words in; replaced by the page's own colour."""
COLOURS = ["#4c8dd6", "#e0812f", "#3fa66b", "#c9534f", "#8f73c9", "#a3765d", "#d07ab5", "#7f8790", "#a8a832", "#2fa7b5"]
LONGEST_LABEL = 80
STYLE = {
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": "#8a8f98",
    "grid.alpha": 0.3,
    "svg.hashsalt": "dmoe",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "legend.framealpha": 0.0,
}


def draw(width: float, height: float, paint: Callable[[Any], None]) -> str:
    """One figure as `<svg>` text; `paint` gets its axes. The same figures give the same text: no date, fixed ids."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        # The page's reader has the fonts; matplotlib's own lacks those of many scripts.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure = Figure(figsize=(width, height), layout="constrained")
        figure.patch.set_alpha(0)
        axes = figure.add_subplot()
        axes.patch.set_alpha(0)
        paint(axes)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :].replace(INK, "currentColor")


def literal(text: str) -> str:
    """A user's text for matplotlib, which takes `$...$` for mathematics, and hides a label that begins with `_`."""
    return f"{' ' * text.startswith('_')}{clip(printable(text), LONGEST_LABEL)}".replace("$", r"\$")


Points = tuple[str, list[float], list[float]]


def curves(title: str, lines: Sequence[Points], x_label: str, y_label: str, marks: Sequence[tuple[str, Sequence[float]]] = ()) -> str:
    """Lines of points: (label, x, y) each.

    Args:
        marks: (label, x) of vertical lines; the first kind in red.
    """

    def paint(axes: Any) -> None:
        for (label, x), colour, style in zip(marks, (COLOURS[3], COLOURS[7]), ("--", ":"), strict=False):
            for place, one in enumerate(x):
                axes.axvline(one, color=colour, linestyle=style, linewidth=1, label="" if place else literal(label))
        for index, (label, x, y) in enumerate(lines):
            axes.plot(x, y, marker=".", color=COLOURS[index % len(COLOURS)], label=literal(label))
        axes.set(title=literal(title), xlabel=x_label, ylabel=y_label)
        axes.grid()
        axes.legend(fontsize=8)

    return draw(5.2, 3.4, paint)


def scatter(title: str, groups: Sequence[Points], x_label: str, y_label: str, log_x: bool = False) -> str:
    """A cloud and its numbered mean for each group: (label, x, y) of its seeds."""

    def paint(axes: Any) -> None:
        for index, (label, x, y) in enumerate(groups):
            colour = COLOURS[index % len(COLOURS)]
            middle = (sum(x) / len(x), sum(y) / len(y))
            axes.scatter(x, y, s=12, color=colour, alpha=0.45, linewidths=0)
            shape = "D" if index >= len(COLOURS) else "o"
            axes.scatter(*middle, s=46, color=colour, marker=shape, label=literal(f"{index + 1} {label}"))
            # A number, since names of near variants would lie over one another.
            axes.annotate(str(index + 1), middle, xytext=(5, 3), textcoords="offset points", fontsize=8)
        if groups:
            axes.figure.legend(loc="outside right center", fontsize=7, frameon=False)
        if log_x:
            _log_ticks(axes)
        axes.set(title=literal(title), xlabel=x_label, ylabel=y_label)
        axes.margins(0.12)
        axes.grid()

    return draw(8.6, 4.8, paint)


def _log_ticks(axes: Any) -> None:
    """A logarithmic x axis with labels at 1, 2 and 5 times the powers of ten: matplotlib's own lie over one another."""
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_minor_formatter(NullFormatter())


def with_bars(title: str, x: Sequence[float], means: Sequence[float], halves: Sequence[float], x_label: str, y_label: str) -> str:
    """Means with intervals over doses; 0 has its place on the logarithmic axis, to the left."""

    def paint(axes: Any) -> None:
        places = list(range(len(x)))
        axes.errorbar(places, means, yerr=halves, marker="o", capsize=4, color=COLOURS[0])
        axes.set_xticks(places, [f"{value:g}" for value in x])
        axes.set(title=literal(title), xlabel=x_label, ylabel=y_label)
        axes.grid()

    return draw(4.6, 3.4, paint)


def forest(title: str, rows: Sequence[tuple[str, float, float, float]], x_label: str) -> str:
    """Differences with their intervals, one below the other: (label, mean, low, high)."""

    def paint(axes: Any) -> None:
        for place, (_, mean, low, high) in enumerate(reversed(rows)):
            colour = COLOURS[2] if low > 0 else COLOURS[3] if high < 0 else COLOURS[7]
            axes.plot([low, high], [place, place], color=colour, linewidth=2)
            axes.plot([mean], [place], marker="o", color=colour)
        axes.axvline(0, color=INK, linewidth=1)
        axes.set_yticks(range(len(rows)), [literal(row[0]) for row in reversed(rows)], fontsize=8)
        axes.set(title=literal(title), xlabel=x_label)
        axes.grid(axis="x")

    return draw(8.6, 0.9 + 0.3 * len(rows), paint)


def heat_map(title: str, matrix: Sequence[Sequence[float]], names: Sequence[str], top: float | None = None) -> str:
    """A matrix with its numbers; `top` is the brightest colour's value, the largest entry where absent."""
    highest = top or max(max(row) for row in matrix) or 1

    def paint(axes: Any) -> None:
        axes.imshow(matrix, vmin=0, vmax=highest, cmap="viridis")
        for row, line in enumerate(matrix):
            for column, value in enumerate(line):
                ink = "white" if value < 0.6 * highest else "black"
                axes.text(column, row, f"{value:.3f}", ha="center", va="center", color=ink, fontsize=8)
        texts = [literal(name) for name in names]
        axes.set_xticks(range(len(texts)), texts, rotation=45, ha="right", fontsize=8)
        axes.set_yticks(range(len(texts)), texts, fontsize=8)
        axes.set_title(literal(title), fontsize=10)

    return draw(1.6 + 0.75 * len(matrix), 1.2 + 0.75 * len(matrix), paint)
