"""Sentences on which conclusions the data of a ladder supports, and which it does not."""

from collections.abc import Sequence

import numpy as np

from dmoe.report.ladder.results import Answers, Difference, Ladder, Result
from dmoe.report.numbers import signed, told
from dmoe.report.statistics import CONFIDENCE, Interval, rank_correlation, t_interval

Steps = Sequence[Difference]


def verdict(one: Difference) -> str:
    """Says whether an AUC difference is significant over seeds and over rows, and, for a control, among all questions of the ladder."""
    if one.auc.low is None:
        return "one seed: no interval"
    if one.sign:
        word = "higher" if one.sign > 0 else "lower"
        return word if one.p_holm is None or one.p_holm < 1 - CONFIDENCE else f"{word} taken alone, not among so many questions"
    if one.auc.sign or one.auc_rows.sign:
        beyond = "over seeds only" if one.auc.sign else "over rows only"
        return f"{'higher' if (one.auc.sign or one.auc_rows.sign) > 0 else 'lower'} {beyond}: not settled"
    return "not resolved: the intervals hold 0"


def supported(ladder: Ladder, answers: Answers) -> list[str]:
    """Sentences on supported conclusions, the most important first."""
    steps, whole, controls = answers.steps, answers.whole, answers.controls
    lines = [_monotone(ladder, steps, "AUC"), _monotone(ladder, steps, "CEC")]
    lines += [_step(ladder, one) for one in steps]
    if whole:
        last = whole[-1]
        lines.append(
            f"Altogether {ladder.spec.label(last.variant)} against {ladder.spec.label(last.against)}: AUC {told(last.auc)},"
            f" {verdict(last)}."
        )
    lines += _dose(ladder) + _cloud(ladder) + [_control(ladder, one) for one in controls]
    return [line for line in lines if line]


def _monotone(ladder: Ladder, steps: Steps, what: str) -> str:
    direction = 1 if what == "AUC" else -1
    names = " -> ".join(ladder.spec.label(name) for name in ladder.spec.rungs if name in ladder.results)
    intervals = [(one, one.auc if what == "AUC" else one.cec) for one in steps]
    known = [(one, interval) for one, interval in intervals if interval is not None]
    if len(known) < len(ladder.spec.rungs) - 1:
        return f"{what} along the rungs: not all of them are trained (or have experts to correlate), so nothing is said."
    verb = "rises" if direction > 0 else "falls"
    against = [one for one, i in known if i.mean * direction <= 0]
    resolved_against = [one for one, i in known if i.sign == -direction]
    open_ = [one for one, i in known if i.sign == 0]
    if not against and not open_:
        return f"{what} {verb} at every rung of {names}, each step beyond chance over seeds: monotone."
    if resolved_against:
        step = "; ".join(f"{ladder.spec.label(one.against)} -> {ladder.spec.label(one.variant)}" for one in resolved_against)
        return f"{what} does NOT {verb[:-1]} at every rung: it goes the other way, beyond chance over seeds, at {step}."
    step = "; ".join(f"{ladder.spec.label(one.against)} -> {ladder.spec.label(one.variant)}" for one in open_)
    rest = f"the means {'do' if not against else 'do not all'} {verb[:-1]}"
    return f"Whether {what} {verb} at every rung is not settled: {rest}, and over these seeds chance is not excluded at {step}."


def _step(ladder: Ladder, one: Difference) -> str:
    cec = f"; CEC {told(one.cec, 3)}" if one.cec else ""
    return (
        f"{ladder.spec.label(one.variant)} over {ladder.spec.label(one.against)}: AUC {told(one.auc)} over seeds,"
        f" [{_bounds(one.auc_rows)}] over rows: {verdict(one)}; logloss {told(one.logloss)}{cec}."
    )


def _bounds(interval: Interval) -> str:
    return "-" if interval.low is None or interval.high is None else f"{signed(interval.low)}, {signed(interval.high)}"


def _control(ladder: Ladder, one: Difference) -> str:
    adjusted = "" if one.p_holm is None else f", p = {one.p_holm:.2g} after Holm's correction"
    return (
        f"{one.question or one.variant} {ladder.spec.label(one.variant)} less {ladder.spec.label(one.against)}: AUC"
        f" {told(one.auc)}, {verdict(one)}{adjusted}.{_equal(one)}"
    )


def _equal(one: Difference) -> str:
    """A sentence on whether the AUCs are equal within the margin of the control; empty without a margin."""
    if one.within is None or (p := one.p_equal) is None:
        return ""
    words = "is within" if p < 1 - CONFIDENCE else "is not shown to be within"
    return f" It {words} {one.within:g} (two one-sided tests over seeds and rows, p = {p:.2g})."


def doses(ladder: Ladder) -> list[tuple[float, Result]]:
    """(dose, result) of the variants of the sweep, in ascending order of the dose."""
    if not ladder.spec.dose:
        return []
    found = [(dose, ladder.results[name]) for name, dose in ladder.spec.dose.variants.items() if name in ladder.results]
    return sorted(found, key=lambda pair: pair[0])


def _dose(ladder: Ladder) -> list[str]:
    found = doses(ladder)
    if len(found) < 2 or not ladder.spec.dose:
        return []
    key, (lowest, first), highest = ladder.spec.dose.key, found[0], found[-1][0]
    seeds = sorted(set.intersection(*(set(result.seeds) for _, result in found)))
    lines = []
    for what, name in (("cec", "CEC"), ("auc", "AUC")):
        by_seed = [[result.metrics[seed][what] for _, result in found] for seed in seeds]
        trend = t_interval([rank_correlation([dose for dose, _ in found], row) for row in by_seed])
        words = (
            {1: "rises", -1: "falls", 0: "shows no trend beyond chance"}[trend.sign]
            if trend.low is not None
            else "has no interval (one seed)"
        )
        path = " ".join(f"{result.mean(what):.4f}" for _, result in found)
        lines.append(
            f"Dose and response, {key} from {lowest:g} to {highest:g}: {name} {words} ({path}; Spearman's rank correlation with the dose,"
            f" mean over seeds {_within_one(trend)})."
        )
    at_zero, best = first.mean("auc"), max(found[1:], key=lambda pair: pair[1].mean("auc"))
    gains = [best[1].metrics[seed]["auc"] - first.metrics[seed]["auc"] for seed in seeds]
    lines.append(
        f"The best dose above the lowest is {best[0]:g}: AUC {told(t_interval(gains))} against {at_zero:.4f} at {lowest:g}; it was picked"
        f" on these test rows among {len(found) - 1}, so the gain is flattered."
    )
    return lines


def _within_one(r: Interval) -> str:
    # Student's t interval may exceed the range of a correlation, so it is clamped to [-1, 1].
    low, high = (None if end is None else min(max(end, -1.0), 1.0) for end in (r.low, r.high))
    return told(Interval(r.mean, low, high, r.p, r.count), 2)


def _cloud(ladder: Ladder) -> list[str]:
    found = [one for one in ladder.results.values() if one.values("cec") and len(one.metrics[one.seeds[0]].get("gate_mass", [])) > 1]
    if len(found) < 4:
        return []
    r = rank_correlation([one.mean("cec") for one in found], [one.mean("auc") for one in found])
    relation = "lower CEC goes with higher AUC" if r < -0.3 else "lower CEC goes with lower AUC" if r > 0.3 else "hardly any relation"
    return [
        f"Over {len(found)} variants with several experts, mean CEC and mean AUC have a rank correlation of {r:+.2f} ({relation});"
        " the variants differ in more than CEC, so this is no evidence of a cause: the dose and response above is."
    ]


def not_supported(ladder: Ladder, answers: Answers) -> list[str]:
    """Sentences on what a reader should not conclude."""
    differences = answers.all
    halves = [half for one in differences if (half := one.auc.half) is not None]
    rows = [half for one in differences if (half := one.auc_rows.half) is not None]
    seeds = max(len(one.seeds) for one in ladder.results.values())
    lines = [
        f"{seeds} seeds and {len(ladder.label):,} test rows: the typical interval of a difference is +-{np.median(halves):.4f} AUC over"
        f" seeds and +-{np.median(rows):.4f} over rows, so smaller effects cannot be told from none here."
        if halves
        else "One seed has no interval: nothing here tells a strategy from luck. Take --seeds 5 or more.",
        "All variants share one set of hyperparameters, tuned for none of them; a strategy could gain or lose once each is"
        " tuned by itself.",
        "The intervals over seeds speak of training anew on this log, those over rows of other rows of this log; neither"
        " speaks of another log.",
        "A low CEC alone is no diversity: a dead, starved, shrunk or noisy expert has one too. The indicators below say where"
        " that happened.",
        "Samples per second were measured beside other runs and are for orientation; tools/bench/latency.py measures a scorer by itself.",
    ]
    if ladder.missing:
        lines.insert(
            0,
            f"{len(ladder.missing)} run(s) are not finished and not counted:"
            f" {', '.join(ladder.missing[:5])}{'...' if len(ladder.missing) > 5 else ''}.",
        )
    return lines
