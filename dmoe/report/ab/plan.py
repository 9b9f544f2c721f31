"""The numbers of rows, units and days that an A/B test needs: with one look at its end, and with a look every day."""

import math
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from scipy.special import ndtri

from dmoe.errors import UserError, shown
from dmoe.json_text import format_json, parse_json
from dmoe.report.ab.plan_options import Metric, PlanOptions
from dmoe.report.ab.sequential import boundary, tightest
from dmoe.report.document import Document, Note, Table
from dmoe.storage.paths import read_bounded

PATHS_DRAWN, MOST_DAYS = 20_000, 3_650


@dataclass(frozen=True)
class Size:
    """The size of a test: rows and units of both arms together. `days_expected` is the mean duration if the effect is as planned."""

    rows: int
    units: int
    days: int
    days_expected: float


@dataclass(frozen=True)
class Plan:
    """The plan of a test. The boundary is tuned to `information`: 1 / variance of the difference at the end of the sequential test."""

    metric: Metric
    baseline: float
    effect: float
    alpha: float
    power: float
    design_effect: float
    fixed: Size
    sequential: Size
    information: float

    @property
    def cost(self) -> float:
        """Rows of the sequential test divided by those of the test with one look."""
        return self.sequential.rows / self.fixed.rows


def make_plan(options: PlanOptions) -> Plan:
    """Computes the plan of a test.

    Raises:
        UserError: a missing or wrong option; the message names it.
    """
    shares = _checked(options)
    effect = options.effect or options.relative * options.baseline
    treatment = options.baseline + effect
    if options.metric == "clicks" and not 0 < treatment < 1:
        raise UserError(f"--effect {effect:g}: makes a click rate of {treatment:g} of one of {options.baseline:g}")
    variances = [rate * (1 - rate) for rate in (options.baseline, treatment)] if options.metric == "clicks" else [options.deviation**2] * 2
    # For the number n of rows of a unit, E[n^2] / E[n] = mean * (1 + spread^2).
    larger = max(options.rows_a_unit * (1 + options.spread**2) - 1, 0.0) if options.rows_a_unit > 1 else 0.0
    factor = 1 + options.correlation * larger
    # Information (1 / variance) on the difference that a row of traffic adds.
    a_row = 1 / (factor * sum(variance / share for variance, share in zip(variances, shares, strict=True)))
    arms_share = sum(shares)

    def size(drift: float, spent: float) -> Size:
        traffic_rows = (drift / effect) ** 2 / a_row
        days = traffic_rows / options.traffic
        if days > MOST_DAYS:
            raise UserError(
                f"--effect {effect:.3g}: needs {days / 365:,.0f} years of this traffic; plan for a larger effect or a larger share"
            )
        rows = math.ceil(traffic_rows * arms_share)
        return Size(rows, math.ceil(rows / options.rows_a_unit), math.ceil(days), spent * math.ceil(days))

    fixed = size(ndtri(1 - options.alpha / 2) + ndtri(options.power), 1.0)
    looks = fixed.days
    for _ in range(20):
        drift, spent = sequential_drift(looks, options.alpha, options.power)
        sequential = size(drift, spent)
        if sequential.days == looks:
            break
        looks = sequential.days
    return Plan(options.metric, options.baseline, effect, options.alpha, options.power, factor, fixed, sequential, (drift / effect) ** 2)


def _checked(options: PlanOptions) -> tuple[float, float]:
    def wrong(name: str, expected: str) -> UserError:
        return UserError(f"--{name.replace('_', '-')} {shown(getattr(options, name))}: expected {expected}")

    for name in ("alpha", "power"):
        if not 0 < getattr(options, name) < 1:
            raise wrong(name, "a number between 0 and 1")
    for name in ("effect", "relative", "deviation", "spread", "correlation", "baseline", "traffic", "rows_a_unit"):
        if not math.isfinite(getattr(options, name)) or (getattr(options, name) < 0 and name not in ("effect", "relative")):
            raise wrong(name, "a finite number, not below 0")
    if options.baseline <= 0 or (options.metric == "clicks" and options.baseline >= 1):
        raise wrong("baseline", "the control's click rate, between 0 and 1" if options.metric == "clicks" else "the control's logloss")
    if bool(options.effect) == bool(options.relative):
        raise UserError("--effect, --relative: expected one of them")
    if options.metric == "logloss" and not options.deviation:
        raise wrong("deviation", "the standard deviation of a row's loss, which `dmoe ab read` tells")
    if options.traffic <= 0:
        raise wrong("traffic", "the rows a day of the whole site")
    if options.rows_a_unit < 1:
        raise wrong("rows_a_unit", "at least 1")
    if options.correlation > 1:
        raise wrong("correlation", "at most 1")
    try:
        first, second = (float(share) for share in options.shares.split(","))
    except ValueError:
        raise wrong("shares", "two shares, such as 0.5,0.5") from None
    if not (first > 0 and second > 0 and first + second <= 1 + 1e-9):
        raise wrong("shares", "two shares above 0, of at most 1 together")
    return first, second


@lru_cache(maxsize=256)
def sequential_drift(looks: int, alpha: float, power: float) -> tuple[float, float]:
    """(drift, share) of a sequential test. `drift` is the effect divided by its standard error at the end for which a test with this many
    evenly spaced looks has this power. `share` is the mean share of the test that is run with such an effect.

    Found by bisection on simulated paths with a fixed seed.
    """
    u_D = np.arange(1, looks + 1) / looks
    bound_D = boundary(tightest(alpha) * u_D, alpha)
    step_PD = np.random.default_rng(0).normal(size=(max(PATHS_DRAWN // max(1, looks // 50), 2000), looks)) / math.sqrt(looks)
    z_PD = np.cumsum(step_PD, 1) / np.sqrt(u_D)

    def crossed(drift: float) -> np.ndarray:
        return z_PD + drift * np.sqrt(u_D) > bound_D

    low, high = 0.0, float(bound_D[-1]) + ndtri(max(power, 0.5)) + 1
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if crossed(middle).any(1).mean() < power else (low, middle)
    hit_PD = crossed(high)
    first_P = np.where(hit_PD.any(1), hit_PD.argmax(1) + 1, looks)
    return high, float(first_P.mean() / looks)


def as_json(plan: Plan) -> str:
    return format_json({"format": "dmoe-ab-plan", **asdict(plan), "cost": plan.cost}, indent=1) + "\n"


def read_plan(path: str, asked_by: str) -> Plan:
    """Reads a plan.

    Raises:
        UserError: not a file that `dmoe ab plan --output` wrote.
    """
    try:
        tree: Any = parse_json(read_bounded(path, 1 << 20, "plan of an A/B test", asked_by))
        if tree.pop("format") != "dmoe-ab-plan":
            raise ValueError("another format")
        tree.pop("cost")
        plan = Plan(**tree | {name: Size(**tree[name]) for name in ("fixed", "sequential")})
        if not (plan.effect and plan.information > 0 and 0 < plan.alpha < 1 and plan.metric in ("clicks", "logloss")):
            raise ValueError("a value out of its range")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{asked_by}: no file of `dmoe ab plan --output` ({str(error)[:100]})") from None
    return plan


def plan_document(plan: Plan) -> Document:
    """What `dmoe ab plan` prints."""
    what = "click rate" if plan.metric == "clicks" else "logloss"
    pair = (plan.fixed, plan.sequential)
    titles = {"rows, both arms": "rows", "units, both arms": "units", "days": "days"}
    rows = [[title, *(f"{getattr(one, key):,}" for one in pair)] for title, key in titles.items()]
    rows.append(["days if the effect is there", *(f"{one.days_expected:,.1f}" for one in pair)])
    return Document(
        "The size of an A/B test",
        [
            Note(
                f"To find a difference of {plan.effect:+.3g} ({plan.effect / plan.baseline:+.2%}) of a {what} of {plan.baseline:.4g} with"
                f" probability {plan.power:g}, at a two-sided false-positive rate of {plan.alpha:g}:"
            ),
            Table(["", "one look at the end", "a look every day"], rows, rule=False),
            Note(f"A look every day costs {plan.cost - 1:.0%} more rows if nothing is there, and may end the test early if it is."),
            Note(f"Rows of one unit are alike: {plan.design_effect:.2f} times the rows of independent ones."),
        ],
    )
