"""Draws charts as SVG, with the text color of the page.

Each value is an element of class `p`. Its `<title>` describes the value: browsers show it as a tooltip, and page.js uses it.
"""

import html
import math
from collections.abc import Iterator, Sequence

from dmoe.names import clip, printable
from dmoe.report.document.axis import Axis, short
from dmoe.report.document.parts import AnyChart, Bars, Chart, Forest, HeatMap, Series

COLORS = ["#4c8dd6", "#e0812f", "#3fa66b", "#c9534f", "#8f73c9", "#a3765d", "#d07ab5", "#7f8790", "#a8a832", "#2fa7b5"]
MARKS = [COLORS[3], COLORS[7]]
VIRIDIS = [(68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37)]
WIDTH, HEIGHT = 560, 330
RIGHT, TOP, BOTTOM = 14, 12, 44
POINTS = 1500
"""Most points of a chart. If there are more, only the minimum and maximum of each stretch are drawn."""
LETTER = 8.2
"""Width of a letter in pixels: for a font of 11 px, with room for the larger font on small screens."""
LONGEST_LABEL = 44


def color(index: int) -> str:
    return COLORS[index % len(COLORS)]


def legend_of(chart: AnyChart) -> list[tuple[str, str]]:
    """(name, color) of each entry in the legend of a chart."""
    if isinstance(chart, Bars):
        return [(name, color(index)) for index, (name, _) in enumerate(chart.series)]
    if not isinstance(chart, Chart):
        return []
    marks = [(name, hue) for (name, x), hue in zip(chart.marks, MARKS, strict=False) if x]
    return [*((one.name, color(index)) for index, one in enumerate(chart.series)), *marks]


def as_svg(chart: AnyChart) -> str:
    """The `<svg>` element of a chart."""
    drawn = {Chart: _lines, Bars: _bars, Forest: _forest, HeatMap: _heat_map}[type(chart)](chart)  # type: ignore[operator]
    return str(drawn)


def _svg(title: str, says: str, height: float, parts: Sequence[str], width: float = WIDTH) -> str:
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}" role="img">'
        f"<title>{_text(title)}</title><desc>{_text(says)}</desc>{''.join(parts)}</svg>"
    )


def _text(text: str) -> str:
    return html.escape(printable(text))


def _word(x: float, y: float, text: str, anchor: str = "middle", more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more}>{_text(clip(text, LONGEST_LABEL))}</text>'


def _wide(text: str) -> float:
    """Width of a label in pixels. Letters of East Asian scripts are twice as wide."""
    return LETTER * sum(1 + (ord(letter) > 0x2E7F) for letter in clip(text, LONGEST_LABEL))


def _value(value: float) -> str:
    return f"{value:.6g}" if abs(value) < 1e5 else f"{value:,.0f}" if abs(value) < 1e15 else f"{value:.3g}"


def _x_axis(axis: Axis, label: str, bottom: float, top: float, names: Sequence[tuple[float, str]] = ()) -> Iterator[str]:
    room = axis.end - axis.start
    ticks = [(value, name) for value, name in names] or axis.ticks()
    # Skip names if there is not enough room for all.
    step = max(math.ceil(sum(_wide(name) + 10 for _, name in ticks) / room), 1)
    for value, name in ticks[::step]:
        x = axis.at(value)
        yield f'<path class="grid" d="M{x:.1f} {top}V{bottom:.1f}"/>{_word(x, bottom + 15, name)}'
    yield _word((axis.start + axis.end) / 2, bottom + 34, label)


def _finite(one: Series, log_x: bool, log_y: bool) -> list[tuple[float, ...]]:
    """(x, y, low, high) of the points that can be drawn: finite, and > 0 on a logarithmic axis."""
    bounds = zip(one.low, one.high, strict=True) if one.low else ((y, y) for y in one.y)
    points = [(float(x), float(y), float(low), float(high)) for x, y, (low, high) in zip(one.x, one.y, bounds, strict=True)]
    return [p for p in points if all(map(math.isfinite, p)) and (p[0] > 0 or not log_x) and (min(p[1:]) > 0 or not log_y)]


def thinned(points: list[tuple[float, ...]], most: int) -> list[tuple[float, ...]]:
    """At most about `most` of the points, in order: the first, the last, and the minimum and maximum of y in each stretch."""
    if len(points) <= most:
        return points
    size = math.ceil(2 * len(points) / most)
    kept = {0, len(points) - 1}
    for start in range(0, len(points), size):
        stretch = range(start, min(start + size, len(points)))
        kept |= {min(stretch, key=lambda at: points[at][1]), max(stretch, key=lambda at: points[at][1])}
    return [points[at] for at in sorted(kept)]


def _lines(chart: Chart) -> str:
    most = max(POINTS // max(len(chart.series), 1), 20)
    drawn = [thinned(_finite(one, chart.log_x, chart.log_y), most) for one in chart.series]
    every = [point for points in drawn for point in points]
    if not every:
        return _svg(chart.title, "No value to draw.", 40, [_word(WIDTH / 2, 24, "no values")])
    levels = [(value, name) for value, name in chart.levels if math.isfinite(value)]
    heights = [value for point in every for value in point[1:]] + [value for value, _ in levels]
    y = Axis(min(heights), max(heights), chart.log_y, HEIGHT - BOTTOM - 6, TOP + 8)
    left = 28 + max(_wide(name) for _, name in y.ticks())
    across = [p[0] for p in every] + [float(one) for _, places in chart.marks for one in places]
    x = Axis(min(across), max(across), chart.log_x, left + 8, WIDTH - RIGHT - 8)
    names = dict(chart.x_names)
    parts = list(_x_axis(x, chart.x_label, HEIGHT - BOTTOM, TOP, chart.x_names))
    for value, name in y.ticks():
        parts.append(
            f'<path class="grid" d="M{left:.1f} {y.at(value):.1f}H{WIDTH - RIGHT}"/>{_word(left - 5, y.at(value) + 4, name, "end")}'
        )
    middle = (HEIGHT - BOTTOM + TOP) / 2
    parts.append(_word(12, middle, chart.y_label, more=f' transform="rotate(-90 12 {middle:.1f})"'))
    for value, name in levels:
        parts.append(f'<path class="level" d="M{left:.1f} {y.at(value):.1f}H{WIDTH - RIGHT}"/>')
        parts.append(_word(WIDTH - RIGHT, y.at(value) - 4, name, "end"))
    for (name, places), hue in zip(chart.marks, MARKS, strict=False):
        lines = [_mark(x.at(one), f"{chart.x_label} {names.get(one, _value(one))}") for one in places]
        parts.append(f'<g class="s" data-name="{_text(name)}" color="{hue}">{"".join(lines)}</g>' if lines else "")
    for index, (one, points) in enumerate(zip(chart.series, drawn, strict=True)):
        marks = [] if chart.cloud else [_path(one, points, x, y)]
        for at, value, low, high in () if one.dashed else points:
            told = f"{chart.x_label} {names.get(at, _value(at))}, {chart.y_label} {_value(value)}"
            told += f" [{_value(low)}, {_value(high)}]" if one.low else ""
            if one.low and not one.band:
                marks.append(f'<path class="whisker" d="M{x.at(at):.1f} {y.at(low):.1f}V{y.at(high):.1f}"/>')
            marks.append(_dot(x.at(at), y.at(value), told, 3.5 if len(every) < 60 else 2))
        if chart.cloud and points:
            means = [math.exp(sum(map(math.log, v)) / len(v)) if log else sum(v) / len(v) for v, log in _columns(chart, points)]
            px, py = x.at(means[0]), y.at(means[1])
            told = f"mean of {len(points)}: {chart.x_label} {_value(means[0])}, {chart.y_label} {_value(means[1])}"
            marks.append(_dot(px, py, told, 6) + _word(px + 8, py - 6, str(index + 1), "start", ' class="ink"'))
        parts.append(f'<g class="s" data-name="{_text(one.name)}" color="{color(index)}">{"".join(marks)}</g>')
    says = f"{chart.y_label} over {chart.x_label}: " + "; ".join(
        _in_short(one, points) for one, points in zip(chart.series, drawn, strict=True)
    )
    return _svg(chart.title, says, HEIGHT, parts)


def _columns(chart: Chart, points: list[tuple[float, ...]]) -> list[tuple[list[float], bool]]:
    return [([p[0] for p in points], chart.log_x), ([p[1] for p in points], chart.log_y)]


def _in_short(one: Series, points: Sequence[tuple[float, ...]]) -> str:
    if not points:
        return f"{one.name} without values"
    return f"{one.name} from {_value(points[0][1])} to {_value(points[-1][1])}"


def _path(one: Series, points: Sequence[tuple[float, ...]], x: Axis, y: Axis) -> str:
    line = "M" + "L".join(f"{x.at(p[0]):.1f} {y.at(p[1]):.1f}" for p in points)
    area = ""
    if one.band:
        edge = [f"{x.at(p[0]):.1f} {y.at(p[2]):.1f}" for p in points] + [f"{x.at(p[0]):.1f} {y.at(p[3]):.1f}" for p in reversed(points)]
        area = f'<path class="band" d="M{"L".join(edge)}Z"/>'
    return f'{area}<path class="line{" dashed" if one.dashed else ""}" d="{line}"/>' if points else ""


def _mark(x: float, told: str) -> str:
    return f'<path class="p line dashed" d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}"><title>{_text(told)}</title></path>'


def _dot(x: float, y: float, told: str, radius: float) -> str:
    return f'<circle class="p" cx="{x:.1f}" cy="{y:.1f}" r="{radius}"><title>{_text(told)}</title></circle>'


ROW = 19


def _rows(names: Sequence[str]) -> tuple[float, float, list[str]]:
    """Left edge and bottom edge of the plot, and the names to its left."""
    left = 12 + min(max(map(_wide, names)), 260)
    words = [_word(left - 7, TOP + ROW * (at + 0.5) + 4, clip(name, int(260 / LETTER)), "end") for at, name in enumerate(names)]
    return left, TOP + ROW * len(names), words


def _bars(chart: Bars) -> str:
    left, bottom, parts = _rows(chart.names)
    totals = [sum(values[at] for _, values in chart.series) for at in range(len(chart.names))]
    least = min((value for value in totals if value > 0), default=1.0)
    x = Axis(least / 2 if chart.log else 0.0, max(*totals, least), chart.log, left, WIDTH - RIGHT)
    parts += _x_axis(x, chart.x_label, bottom, TOP)
    base = [0.0] * len(chart.names)
    for index, (name, values) in enumerate(chart.series):
        marks = []
        for at, value in enumerate(values):
            if value > 0:
                start = x.at(base[at]) if base[at] or not chart.log else x.start
                box = f'x="{start:.1f}" y="{TOP + ROW * at + 3}" width="{max(x.at(base[at] + value) - start, 0.5):.1f}" height="{ROW - 6}"'
                marks.append(f'<rect class="p" {box}><title>{_text(f"{chart.names[at]}: {_value(value)} {chart.x_label}")}</title></rect>')
            base[at] += value
        parts.append(f'<g class="s" data-name="{_text(name)}" color="{color(index)}">{"".join(marks)}</g>')
    return _svg(chart.title, f"{chart.x_label} of {len(chart.names)} rows.", bottom + BOTTOM, parts)


def _forest(chart: Forest) -> str:
    left, bottom, parts = _rows([name for name, *_ in chart.rows])
    ends = [value for _, *values in chart.rows for value in values if math.isfinite(value)]
    x = Axis(min([0.0, *ends]), max([0.0, *ends]), False, left + 8, WIDTH + 112 - RIGHT)
    parts += [*_x_axis(x, chart.x_label, bottom, TOP), f'<path class="level" d="M{x.at(0):.1f} {TOP}V{bottom}"/>']
    for at, (name, *values) in enumerate(chart.rows):
        if not all(map(math.isfinite, values)):
            continue
        mean, low, high = values
        y, hue = TOP + ROW * (at + 0.5), COLORS[2] if low > 0 else COLORS[3] if high < 0 else COLORS[7]
        bar = f'<path class="whisker" d="M{x.at(low):.1f} {y}H{x.at(high):.1f}"/>'
        dot = _dot(x.at(mean), y, f"{name}: {chart.x_label} {mean:+.6g} [{low:+.6g}, {high:+.6g}]", 4)
        parts.append(f'<g color="{hue}">{bar}{dot}</g>')
    says = "; ".join(f"{name} {mean:+.4g} [{low:+.4g}, {high:+.4g}]" for name, mean, low, high in chart.rows)
    return _svg(chart.title, says, bottom + BOTTOM, parts, WIDTH + 120)


def _heat_map(chart: HeatMap) -> str:
    size, names = 52, [clip(name, 18) for name in chart.names or map(str, range(len(chart.matrix)))]
    highest = chart.top or max(value for row in chart.matrix for value in row) or 1
    left, side = 14 + max(map(_wide, names)), size * len(names)
    parts = []
    for at, name in enumerate(names):
        y, x = TOP + size * (at + 0.5) + 4, left + size * (at + 0.5)
        parts.append(_word(left - 7, y, name, "end"))
        parts.append(_word(x, TOP + side + 14, name, "end", f' transform="rotate(-40 {x:.1f} {TOP + side + 14:.1f})"'))
    for row, line in enumerate(chart.matrix):
        for column, value in enumerate(line):
            x, y, share = left + size * column, TOP + size * row, min(max(value / highest, 0.0), 1.0)
            told = f"{names[row]} and {names[column]}: {value:.4f}"
            ink = "#fff" if share < 0.6 else "#000"
            box = f'x="{x:.1f}" y="{y}" width="{size}" height="{size}" fill="{_viridis(share)}"'
            parts.append(f'<rect class="p" {box}><title>{_text(told)}</title></rect>')
            parts.append(_word(x + size / 2, y + size / 2 + 4, f"{value:.3f}", more=f' style="fill:{ink}"'))
    says = f"A matrix of {len(names)} rows and columns; colors go up to {short(highest)}."
    down = 22 + max(map(_wide, names)) * 0.7
    return _svg(chart.title, says, TOP + side + down, parts, left + side + 8)


def _viridis(share: float) -> str:
    at = share * (len(VIRIDIS) - 1)
    low = min(int(at), len(VIRIDIS) - 2)
    return "#" + "".join(f"{round(a + (b - a) * (at - low)):02x}" for a, b in zip(VIRIDIS[low], VIRIDIS[low + 1], strict=True))
