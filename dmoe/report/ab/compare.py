"""Compares an arm with the control: effects with intervals that are computed by units and valid at every daily look, and single days.

Shapes: D days, U units of an arm, N rows.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from dmoe.report.ab.clusters import Effect, effect, ratio_of_sums
from dmoe.report.ab.join import Joined
from dmoe.report.ab.plan import Metric, Plan
from dmoe.report.ab.sequential import at_looks, boundary, tightest

FEW_UNITS, FEW_CLICKS = 100, 20
"""Units and clicks that each arm needs before the first look, since normal intervals need large samples."""
MOST_DAYS = 3650
NOVELTY_ALPHA = 0.01


@dataclass(frozen=True)
class Look:
    """The effect of all rows up to the end of a day. `p` is the minimum so far."""

    day: int
    absolute: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Comparison:
    """The comparison of an arm with the control in one metric, with always-valid intervals at `confidence`.

    Attributes:
        naive_error: standard error for independent rows, which is too small for clustered rows.
        days_needed: number of further days until the half-width of the interval is `target`; None if that is unknown or takes too long.
        looks: one look per day with enough data.
        days: (day, effect, standard error) of each day alone, to show novelty effects.
        novelty: effect in the second half of the days minus that in the first half, with its 99 % interval for one look; None with too
            few days.
    """

    arm: str
    metric: Metric
    confidence: float
    control: float
    treatment: float
    absolute: float
    low: float
    high: float
    relative: float
    relative_low: float
    relative_high: float
    error: float
    naive_error: float
    p: float
    target: float
    planned: bool
    days_needed: int | None
    looks: list[Look]
    days: list[tuple[int, float, float]]
    novelty: tuple[float, float, float] | None

    @property
    def sign(self) -> int:
        """1 if the arm is better than the control, -1 if it is worse, 0 if the interval contains 0."""
        better = 1 if self.metric == "clicks" else -1
        return better if self.low > 0 else -better if self.high < 0 else 0


def compare(
    joined: Joined,
    names: Sequence[str],
    number: int,
    metric: Metric,
    value_N: np.ndarray,
    day_N: np.ndarray,
    alpha: float,
    plan: Plan | None,
    planned_days: int,
) -> Comparison:
    sums = [_daily_sums(joined, arm, value_N, day_N) for arm in (0, number)]
    means = [float(one.x_K.sum() / one.n_K.sum()) for one in sums]
    effects, first = _cumulative(sums)
    last, day, so_far = effects[-1], int(day_N.min()), len(effects)
    half = relative_half = math.inf
    needed, looks = None, []
    target = abs(plan.effect) if plan else abs(float(last.absolute))
    if first is not None:
        estimate_D, variance_D = (np.array([getattr(one, name) for one in effects[first:]]) for name in ("absolute", "variance"))
        planned = plan.information if plan else planned_days / float(variance_D[0])
        tau = planned / tightest(alpha)
        half_D, p_D = at_looks(estimate_D, variance_D, tau, alpha)
        for at, (estimate, half, p) in enumerate(zip(estimate_D.tolist(), half_D.tolist(), p_D.tolist(), strict=True)):
            looks.append(Look(day + first + at, estimate, estimate - half, estimate + half, p))
        relative_half = half * math.sqrt(last.relative_variance / last.variance)
        needed = _days_needed(1 / float(last.variance), so_far, tau, alpha, target)
    naive = math.sqrt(sum(float(value_N[joined.arm_N == arm].var()) / float((joined.arm_N == arm).sum()) for arm in (0, number)))
    return Comparison(
        names[number],
        metric,
        1 - alpha,
        means[0],
        means[1],
        float(last.absolute),
        last.absolute - half,
        last.absolute + half,
        float(last.relative),
        last.relative - relative_half,
        last.relative + relative_half,
        math.sqrt(last.variance),
        naive,
        looks[-1].p if looks else 1.0,
        target,
        plan is not None,
        needed,
        looks,
        _alone(sums, day),
        _novelty(sums),
    )


@dataclass(frozen=True)
class _Sums:
    """Sums of an arm for each pair of day and unit (K pairs, ordered by day): index of the unit, sum of values, number of rows. start_D is
    where each day starts; clicks_D is the number of clicks per day."""

    unit_K: np.ndarray
    x_K: np.ndarray
    n_K: np.ndarray
    start_D: np.ndarray
    clicks_D: np.ndarray
    units: int

    def of(self, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """Sum of values and number of rows of each unit on the days first .. last - 1, [U]."""
        part = slice(self.start_D[first], self.start_D[last])
        unit_K = self.unit_K[part]
        return np.bincount(unit_K, self.x_K[part], self.units), np.bincount(unit_K, self.n_K[part], self.units)


def _daily_sums(joined: Joined, arm: int, value_N: np.ndarray, day_N: np.ndarray) -> _Sums:
    of_arm, days = joined.arm_N == arm, int(day_N.max() - day_N.min()) + 1
    _, unit_N = np.unique(joined.unit_N[of_arm], return_inverse=True)
    units, at_N = int(unit_N.max()) + 1, day_N[of_arm] - day_N.min()
    place_K, place_N = np.unique(at_N * units + unit_N, return_inverse=True)
    return _Sums(
        place_K % units,
        np.bincount(place_N, value_N[of_arm]),
        np.bincount(place_N).astype(float),
        np.searchsorted(place_K, np.arange(days + 1) * units),
        np.bincount(at_N, joined.clicked_N[of_arm], days),
        units,
    )


def _cumulative(sums: Sequence[_Sums]) -> tuple[list[Effect], int | None]:
    """The cumulative effect after each day, and the index of the first day with enough data (None if there is none)."""
    found: list[Effect] = []
    first = None
    totals = [(np.zeros(one.units), np.zeros(one.units)) for one in sums]
    for at in range(len(sums[0].clicks_D)):
        arms, enough = [], True
        for one, (x_U, n_U) in zip(sums, totals, strict=True):
            # A unit occurs at most once per day, so += with an index array is safe.
            today = slice(one.start_D[at], one.start_D[at + 1])
            x_U[one.unit_K[today]] += one.x_K[today]
            n_U[one.unit_K[today]] += one.n_K[today]
            seen = n_U > 0
            enough &= int(seen.sum()) >= FEW_UNITS and one.clicks_D[: at + 1].sum() >= FEW_CLICKS
            arms.append(ratio_of_sums(x_U[seen], n_U[seen]) if seen.any() else (math.nan, math.nan))
        found.append(effect(*arms))
        if first is None and enough and found[-1].variance > 0:
            first = at
    return found, first


def _alone(sums: Sequence[_Sums], day: int) -> list[tuple[int, float, float]]:
    """(day, effect, standard error) for each day alone, if both arms have data."""
    alone = []
    for at in range(len(sums[0].clicks_D)):
        today = [slice(one.start_D[at], one.start_D[at + 1]) for one in sums]
        if all(part.stop > part.start for part in today):
            found = effect(*(ratio_of_sums(one.x_K[part], one.n_K[part]) for one, part in zip(sums, today, strict=True)))
            if found.variance > 0:
                alone.append((day + at, float(found.absolute), math.sqrt(found.variance)))
    return alone


def _days_needed(information: float, days: int, tau: float, alpha: float, target: float) -> int | None:
    """Further days until the half-width of the interval is `target`, at the current rate of information. None beyond ten years."""
    more_D = np.arange(MOST_DAYS + 1)
    information_D = information * (1 + more_D / days)
    narrow_D = boundary(information_D / tau, alpha) / np.sqrt(information_D) <= target
    return int(narrow_D.argmax()) if narrow_D.any() and target > 0 else None


def _novelty(sums: Sequence[_Sums]) -> tuple[float, float, float] | None:
    """Effect in the second half of the days minus that in the first half, with its interval by units. None with fewer than four days."""
    days = len(sums[0].clicks_D)
    if days < 4:
        return None
    value, variance = 0.0, 0.0
    for sign, one in zip((-1, 1), sums, strict=True):
        influence_U = np.zeros(one.units)
        for half, (x_U, n_U) in ((-1, one.of(0, days // 2)), (1, one.of(days - days // 2, days))):
            if not n_U.sum():
                return None
            mean = x_U.sum() / n_U.sum()
            value += sign * half * mean
            influence_U += half * (x_U - mean * n_U) / n_U.sum()
        variance += float(np.square(influence_U).sum())
    half_width = ndtri(1 - NOVELTY_ALPHA / 2) * math.sqrt(variance)
    return float(value), float(value - half_width), float(value + half_width)
