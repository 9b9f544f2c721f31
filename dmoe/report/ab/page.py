"""One self-contained page on an A/B test: verdict, figures, and how the effect came about day by day."""

import html
from typing import Any

from dmoe.report.ab.compare import Comparison
from dmoe.report.ab.read import Reading
from dmoe.report.ab.words import ARM_HEAD, EFFECT_HEAD, NAMES, arm_rows, date, effect_rows, explained, notes, title, verdicts
from dmoe.report.html import Cell, bullets, document, figures, paragraph, table
from dmoe.report.plots import COLOURS, INK, draw, literal

KINDS = {"win": "good", "loss": "bad", "broken": "bad", "none": "faint", "open": ""}


def page(reading: Reading) -> str:
    """The page's text."""
    primary = [one for one in reading.comparisons if one.metric == reading.primary]
    parts = []
    for one in verdicts(reading):
        parts.append(f"<h2 class='{KINDS[one.kind]}'>{html.escape(f'{one.headline}: {one.arm}')}</h2>{paragraph(one.says)}")
    effects = [
        [row[0], row[1], Cell(row[2], {1: "good", -1: "bad"}.get(one.sign, "")), row[3]]
        for row, one in zip(effect_rows(reading.comparisons), reading.comparisons, strict=True)
    ]
    parts += [
        "<h2>Effects</h2>",
        table(EFFECT_HEAD, effects),
        paragraph(explained(reading), "faint"),
        figures([drawn for one in primary for drawn in (_cumulative(one), _daily(one))]),
        "<h2>Arms</h2>",
        table(ARM_HEAD, arm_rows(reading.arms)),
        paragraph("± is a 95 % interval by units, for one look.", "faint"),
        figures([_calibration(reading)]),
        "<h2>What the data are, and what to watch</h2>",
        bullets(notes(reading)),
        "<h2>Versions</h2>",
        table(["arm", "versions"], [[arm.arm, Cell(", ".join(arm.versions), "words")] for arm in reading.arms]),
    ]
    return document(title(reading), parts)


def _dates(axes: Any, days: list[int]) -> None:
    step = max(1, -(-len(days) // 8))
    axes.set_xticks(days[::step], [date(day)[5:] for day in days[::step]], fontsize=8)


def _unit(one: Comparison) -> tuple[float, str]:
    return (100.0, "percentage points") if one.metric == "clicks" else (1.0, "")


def _cumulative(one: Comparison) -> str:
    """The effect of all rows up to each day, with the interval that holds at every look."""
    scale, unit = _unit(one)

    def paint(axes: Any) -> None:
        days = [look.day for look in one.looks]
        low, high = ([scale * getattr(look, name) for look in one.looks] for name in ("low", "high"))
        axes.fill_between(days, low, high, color=COLOURS[0], alpha=0.25, linewidth=0, label="holds at every look")
        axes.plot(days, [scale * look.absolute for look in one.looks], marker=".", color=COLOURS[0], label="so far")
        axes.axhline(0, color=INK, linewidth=1)
        if one.planned:
            for side in (-1, 1):
                axes.axhline(side * scale * one.target, color=COLOURS[1], linewidth=1, linestyle=":", label="planned" if side > 0 else None)
        _dates(axes, days)
        axes.set(title=literal(f"{NAMES[one.metric]}: {one.arm} less control, so far"), ylabel=unit)
        axes.grid()
        axes.legend(fontsize=8)

    return draw(6.4, 3.6, paint)


def _daily(one: Comparison) -> str:
    """Each day alone: a novelty fades."""
    scale, unit = _unit(one)

    def paint(axes: Any) -> None:
        days = [day for day, _, _ in one.days]
        halves = [1.96 * scale * error for _, _, error in one.days]
        axes.errorbar(days, [scale * value for _, value, _ in one.days], yerr=halves, fmt="o", capsize=3, color=COLOURS[0])
        axes.axhline(0, color=INK, linewidth=1)
        _dates(axes, days)
        axes.set(title=literal(f"{NAMES[one.metric]}: {one.arm} less control, each day alone"), ylabel=unit)
        axes.grid()

    return draw(6.4, 3.6, paint)


def _calibration(reading: Reading) -> str:
    """Click rate over mean score in ten groups of rows of equal size."""

    def paint(axes: Any) -> None:
        for index, arm in enumerate(reading.arms):
            scores, rates = zip(*arm.bins, strict=True)
            axes.plot(scores, rates, marker=".", color=COLOURS[index % len(COLOURS)], label=literal(arm.arm))
        top = max(max(score, rate) for arm in reading.arms for score, rate in arm.bins)
        axes.plot([0, top], [0, top], color=INK, linewidth=1, linestyle=":", label="calibrated")
        axes.set(title="Calibration: ten groups by score", xlabel="mean score", ylabel="click rate")
        axes.grid()
        axes.legend(fontsize=8)

    return draw(5.2, 3.8, paint)
