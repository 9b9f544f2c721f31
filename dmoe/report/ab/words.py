"""The results of an A/B test in words and tables."""

import datetime
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from dmoe.json_text import defined
from dmoe.report.ab.compare import NOVELTY_ALPHA, Comparison
from dmoe.report.ab.read import ArmFigures, Reading
from dmoe.report.document import Cell

NAMES = {"clicks": "click rate", "logloss": "logloss"}
MUCH_UNMATCHED = 0.05


Kind = Literal["broken", "win", "loss", "none", "open"]
HEADLINES: dict[Kind, str] = {
    "broken": "Not to be believed",
    "win": "Win",
    "loss": "Loss",
    "none": "No difference of the planned size",
    "open": "No difference found yet",
}


@dataclass(frozen=True)
class Verdict:
    """The verdict on an arm against the control, in the primary metric. `broken` means a sample ratio mismatch, so no effect is valid."""

    kind: Kind
    arm: str
    says: str

    @property
    def headline(self) -> str:
        return HEADLINES[self.kind]


def verdicts(reading: Reading) -> list[Verdict]:
    """One verdict for each arm that is compared with the control."""
    control = reading.arms[0].arm
    return [Verdict(*_verdict(reading, one, control)) for one in reading.comparisons if one.metric == reading.primary]


def _verdict(reading: Reading, one: Comparison, control: str) -> tuple[Kind, str, str]:
    name = NAMES[one.metric]
    figures = (
        f"its {name} is {number(one.treatment, one.metric)}, that of {control} {number(one.control, one.metric)}:"
        f" {relative(one)} of the latter"
    )
    if reading.mismatch:
        cause = "a unit that is lost or answered twice in one arm, a bot, a log that is cut"
        return (
            "broken",
            one.arm,
            "The arms do not have the shares of units that were planned, so they differ in more than the scorer."
            f" Find out why ({cause}) before you look at any effect.",
        )
    if not one.looks:
        return "open", one.arm, f"Arm {one.arm} or {control} has too few units or clicks so far for any statement."
    if one.sign:
        better = "better" if one.sign > 0 else "worse"
        holds = "This holds at every look: the test may end."
        return "win" if one.sign > 0 else "loss", one.arm, f"Arm {one.arm} is {better} than {control}: {figures}. {holds}"
    if one.planned and max(abs(one.low), abs(one.high)) <= one.target:
        ruled_out = f"A difference as large as planned ({signed(one.target, one.metric)}) is ruled out: the test may end."
        return "none", one.arm, f"Arm {one.arm} is like {control}: {figures}. {ruled_out}"
    return "open", one.arm, f"Arm {one.arm} may be better or worse than {control}: {figures}. {_needs(one)}"


def _needs(one: Comparison) -> str:
    what = "the planned difference" if one.planned else "a difference as large as this one"
    if one.days_needed is None:
        return f"At this traffic, no number of days that can be waited for shows {what}."
    if one.days_needed == 0:
        return f"The data are enough to show {what}; a smaller one needs more days."
    return f"Needs about {one.days_needed:,} more day{'s' * (one.days_needed != 1)} of this traffic to show {what}."


def number(value: float, metric: str) -> str:
    if not math.isfinite(value):
        return "-"
    return f"{value:.3%}" if metric == "clicks" else f"{value:.5f}"


def signed(value: float, metric: str, low: float = math.nan, high: float = math.nan) -> str:
    """Formats a difference, with its interval if there is one. Differences of click rates are in percentage points."""
    scale, digits, unit = (100, 3, " points") if metric == "clicks" else (1, 5, "")
    if not math.isfinite(value):
        return "-"
    interval = f" [{scale * low:+.{digits}f}, {scale * high:+.{digits}f}]" if math.isfinite(low) else ""
    return f"{scale * value:+.{digits}f}{interval}{unit}"


def percent(value: float) -> str:
    return f"{value:+.2%}" if math.isfinite(value) else "-"


def relative(one: Comparison) -> str:
    return f"{percent(one.relative)} [{percent(one.relative_low)}, {percent(one.relative_high)}]"


def p_text(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else f"{p:.0e}"


def with_error(value: float, error: float, digits: int = 4) -> str:
    return f"{value:.{digits}f} ± {1.96 * error:.{digits}f}" if math.isfinite(value) else "-"


def date(day: int) -> str:
    return (datetime.date(1970, 1, 1) + datetime.timedelta(days=day)).isoformat()


ARM_HEAD = ["arm", "share", "units", "rows", "clicks", "click rate", "logloss", "AUC", "clicks/expected"]


def arm_rows(arms: Sequence[ArmFigures]) -> list[list[str]]:
    """A row of figures for each arm. ± is a 95 % interval by units, for one look."""
    return [
        [
            one.arm,
            f"{one.share:.2%}",
            f"{one.units:,}",
            f"{one.rows:,}",
            f"{one.clicks:,}",
            number(one.click_rate, "clicks"),
            f"{one.loss:.5f}",
            with_error(one.auc, one.auc_error),
            with_error(one.calibration, one.calibration_error, 3),
        ]
        for one in arms
    ]


EFFECT_HEAD = ["against the control", "difference", "of the control's", "p"]


def effect_rows(comparisons: Sequence[Comparison]) -> list[list[str]]:
    return [
        [
            f"{one.arm}: {NAMES[one.metric]}",
            signed(one.absolute, one.metric, one.low, one.high),
            Cell(relative(one) if one.looks else "-", {1: "good", -1: "bad"}.get(one.sign, "")),
            p_text(one.p),
        ]
        for one in comparisons
    ]


def notes(reading: Reading) -> list[str]:
    """Notes for the reader, the most important first."""
    counts, primary = reading.counts, [one for one in reading.comparisons if one.metric == reading.primary]
    lines = [
        f"Units in the arms: {'NOT AS PLANNED' if reading.mismatch else 'as planned'} (p {p_text(reading.mismatch_p)} at every look,"
        f" below 0.001 would be no chance; chi-squared at one look {p_text(reading.chi_squared_p)})."
    ]
    told = [f"{count:,} {name}" for name, count in counts.items() if count and name not in ("exposures", "clicks", "rows", "clicked rows")]
    lines.append(
        f"{counts['exposures']:,} exposures and {counts['clicks']:,} clicks, window {_window(reading.window)}: {counts['rows']:,} rows,"
        f" {counts['clicked rows']:,} of them clicked" + (f". Left out or folded: {', '.join(told)}." if told else ".")
    )
    if counts["clicks"] and (share := counts["unmatched clicks"] / counts["clicks"]) > MUCH_UNMATCHED:
        lines.append(f"WARNING: {share:.0%} of the clicks match no exposure: other pages' clicks, or ids that the logs do not share?")
    for one in primary:
        if one.novelty and (one.novelty[1] > 0 or one.novelty[2] < 0):
            way = "grew" if one.novelty[0] * one.absolute > 0 else "faded"
            change = f"{signed(one.novelty[0], one.metric)} [{signed(one.novelty[1], one.metric)}, {signed(one.novelty[2], one.metric)}]"
            lines.append(f"NOVELTY: the effect of {one.arm} {way} from the first half of the days to the second: {change} at 99 %.")
        elif one.novelty:
            lines.append(f"No sign of novelty: the effect of {one.arm} in both halves of the days is alike (at {NOVELTY_ALPHA:.0%}).")
    for arm in reading.arms:
        if len(arm.versions) > 1:
            lines.append(f"{arm.arm} had {len(arm.versions)} versions: {', '.join(arm.versions[:5])}; the effect is their mixture's.")
        if arm.calibration_error and abs(arm.calibration - 1) > 4 * arm.calibration_error:
            lines.append(f"{arm.arm} is not calibrated: {arm.calibration:.2f} clicks for each that its scores expect.")
    if reading.shadow:
        rows, auc, loss, answered_auc, answered_loss = reading.shadow
        lines.append(
            f"The shadow on {rows:,} rows: AUC {auc:.4f} (answered {answered_auc:.4f}), logloss {loss:.5f} (answered {answered_loss:.5f})."
            " It ranked nothing, so this compares scores on rows that other scores chose."
        )
    control = reading.arms[0]
    lines.append(
        f"For the next plan: --baseline {control.click_rate:.4g} --rows-a-unit {control.rows_a_unit:.3g} --spread {control.spread:.3g}"
        f" --correlation {max(control.correlation, 0):.3g}; for logloss --baseline {control.loss:.4g} --deviation {control.deviation:.3g}."
        f" Rows count {control.design_effect:.2f} times less than independent ones."
    )
    return lines


def explained(reading: Reading) -> str:
    """Explains the intervals of the effects."""
    confidence = f"{100 * reading.comparisons[0].confidence:.4g} %"
    return (
        f"Intervals and p are by units and hold however often they are looked at, at {confidence}. The logloss of an arm is of its own"
        " rows: it also differs where the click rate does."
    )


def _window(seconds: float) -> str:
    for size, letter in ((86_400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g}{letter}"
    return f"{seconds:g}s"


def title(reading: Reading) -> str:
    return f"A/B test {reading.test}, {date(reading.first_day)} to {date(reading.last_day)}"


def as_tree(reading: Reading) -> dict[str, Any]:
    """All figures and verdicts, for JSON. Days are dates, and undefined numbers are None."""
    tree = asdict(reading) | {"first_day": date(reading.first_day), "last_day": date(reading.last_day), "mismatch": reading.mismatch}
    for one in tree["comparisons"]:
        for look in one["looks"]:
            look["day"] = date(look["day"])
        one["days"] = [{"day": date(day), "absolute": value, "error": error} for day, value, error in one["days"]]
    result: dict[str, Any] = defined(
        {"verdicts": [{"kind": one.kind, "arm": one.arm, "says": one.says} for one in verdicts(reading)], **tree}
    )
    return result
