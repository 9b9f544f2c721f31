"""The page of an A/B test: verdict, figures, and the effect day by day."""

from dmoe.report.ab.compare import Comparison
from dmoe.report.ab.read import Reading
from dmoe.report.ab.words import ARM_HEAD, EFFECT_HEAD, NAMES, arm_rows, date, effect_rows, explained, notes, title, verdicts
from dmoe.report.document import Block, Bullets, Chart, Document, Figures, Heading, Note, Series, Table

KINDS = {"win": "good", "loss": "bad", "broken": "bad", "none": "faint", "open": ""}
SPLIT = 6
"""Columns of the table of arms that fit into the text. The other columns follow in a second table."""


def ab_document(reading: Reading) -> Document:
    """The page of a test."""
    primary = [one for one in reading.comparisons if one.metric == reading.primary]
    arms = arm_rows(reading.arms)
    blocks: list[Block] = [Note(title(reading), only="text")]
    for one in verdicts(reading):
        blocks += [Heading(f"{one.headline}: {one.arm}", kind=KINDS[one.kind]), Note(one.says, only="page")]
        blocks.append(Note(f"{one.headline.upper()} ({one.arm}). {one.says}", only="text"))
    blocks += [
        Table(ARM_HEAD[:SPLIT], [row[:SPLIT] for row in arms], only="text"),
        Table([ARM_HEAD[0], *ARM_HEAD[SPLIT:]], [[row[0], *row[SPLIT:]] for row in arms], only="text"),
        Heading("Effects"),
        Table(EFFECT_HEAD, effect_rows(reading.comparisons)),
        Note(f"{explained(reading)} ± is a 95 % interval by units, for one look.", "faint"),
        Figures([drawn for one in primary for drawn in (_cumulative(one), _daily(one))]),
        Heading("Arms"),
        Table(ARM_HEAD, arms, only="page"),
        Figures([_calibration(reading)]),
        Heading("What the data are, and what to watch"),
        Bullets(notes(reading)),
        Heading("Versions"),
        Table(["arm", "versions"], [[arm.arm, ", ".join(arm.versions)] for arm in reading.arms], words=(0, 1), only="page"),
    ]
    return Document(title(reading), blocks)


def _unit(one: Comparison) -> tuple[float, str]:
    return (100.0, "percentage points") if one.metric == "clicks" else (1.0, "logloss")


def _cumulative(one: Comparison) -> Chart:
    """The effect of all rows up to each day, with the interval that is valid at every look."""
    scale, unit = _unit(one)
    y, low, high = ([scale * getattr(look, name) for look in one.looks] for name in ("absolute", "low", "high"))
    days = [look.day for look in one.looks]
    planned = [(side * scale * one.target, "planned") for side in (-1, 1)] if one.planned else []
    shown = Series(f"{one.arm}, so far", days, y, low, high, band=True)
    name = f"{NAMES[one.metric]}: {one.arm} less control, so far"
    return Chart(name, "day", unit, [shown], x_names=[(day, date(day)[5:]) for day in days], levels=[(0.0, "no difference"), *planned])


def _daily(one: Comparison) -> Chart:
    """The effect of each day alone, which shows if a novelty effect fades."""
    scale, unit = _unit(one)
    days, y, errors = ([row[at] for row in one.days] for at in range(3))
    low, high = ([scale * (value + side * 1.96 * error) for value, error in zip(y, errors, strict=True)] for side in (-1, 1))
    shown = Series(f"{one.arm}, each day", days, [scale * value for value in y], low, high)
    name = f"{NAMES[one.metric]}: {one.arm} less control, each day alone"
    return Chart(name, "day", unit, [shown], x_names=[(day, date(int(day))[5:]) for day in days], levels=[(0.0, "no difference")])


def _calibration(reading: Reading) -> Chart:
    """Click rate against mean score, for ten groups of rows of equal size, ordered by score."""
    arms = [Series(arm.arm, [score for score, _ in arm.bins], [rate for _, rate in arm.bins]) for arm in reading.arms]
    top = max((max(*one.x, *one.y) for one in arms), default=1.0)
    return Chart(
        "Calibration: ten groups by score", "mean score", "click rate", [*arms, Series("calibrated", [0, top], [0, top], dashed=True)]
    )
