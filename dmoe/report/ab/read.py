"""Analyzes an A/B test: figures and effects of the arms, sample ratio mismatch, and the quality of the scores of a shadow.

Shapes: D days, A arms, U units, N rows.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.stats import chi2

from dmoe.errors import UserError
from dmoe.report.ab.clusters import clustered_auc, design_effect, ratio_of_sums
from dmoe.report.ab.compare import Comparison, compare
from dmoe.report.ab.join import DAY, Joined
from dmoe.report.ab.load import Test
from dmoe.report.ab.plan import Metric, Plan
from dmoe.report.ab.sequential import ratio_mismatch_p

MISMATCH_ALPHA = 0.001
TINY = 1e-7


@dataclass(frozen=True)
class ArmFigures:
    """Figures of an arm. `loss` is the mean logloss of a row and `deviation` its standard deviation. `calibration` is the number of clicks
    divided by the sum of scores."""

    arm: str
    share: float
    units: int
    rows: int
    clicks: int
    click_rate: float
    click_rate_error: float
    loss: float
    loss_error: float
    deviation: float
    auc: float
    auc_error: float
    calibration: float
    calibration_error: float
    design_effect: float
    correlation: float
    rows_a_unit: float
    spread: float
    versions: list[str]
    bins: list[tuple[float, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Reading:
    """The results of a test. `mismatch_p` is valid at every look, `chi_squared_p` only for one look. `shadow` is (rows, AUC, logloss, AUC
    of the answered scores, logloss of the answered scores)."""

    test: str
    first_day: int
    last_day: int
    window: float
    counts: dict[str, int]
    arms: list[ArmFigures]
    primary: Metric
    comparisons: list[Comparison]
    mismatch_p: float
    chi_squared_p: float
    shadow: tuple[int, float, float, float, float] | None

    @property
    def mismatch(self) -> bool:
        return self.mismatch_p < MISMATCH_ALPHA


def read_test(
    joined: Joined, test: Test, window: float, plan: Plan | None = None, metric: Metric = "clicks", alpha: float = 0.05, days: int = 14
) -> Reading:
    """Analyzes a test.

    Args:
        plan: plan of the test. Without it, the boundary is tuned to `days` days with the information of the first look each.
        metric, alpha: primary metric and false-positive rate; with a plan, those of the plan are used.

    Raises:
        UserError: an arm has no exposure.
    """
    names = list(test.arms)
    units_A = np.bincount(joined.arm_U[np.unique(joined.unit_N)], minlength=len(names))
    if not units_A[0] or (units_A > 0).sum() < 2:
        empty = [name for name, units in zip(names, units_A, strict=True) if not units]
        raise UserError(f"exposures: no row of arm {empty[0]}: nothing to compare")
    metric, alpha = (plan.metric, plan.alpha) if plan else (metric, alpha)
    day_N = joined.time_N // DAY
    value_of: dict[Metric, np.ndarray] = {
        "clicks": joined.clicked_N.astype(float),
        "logloss": loss_rows(joined.score_N, joined.clicked_N),
    }
    loss_N = value_of["logloss"]
    arms = [_figures(joined, number, name, test.arms[name], loss_N) for number, name in enumerate(names) if units_A[number]]
    others = [number for number in range(1, len(names)) if units_A[number]]
    comparisons = []
    for kind in (metric, *(one for one in value_of if one != metric)):
        tuned = plan if plan and kind == plan.metric else None
        for number in others:
            comparisons.append(compare(joined, names, number, kind, value_of[kind], day_N, alpha / len(others), tuned, days))
    mismatch_p, chi_squared_p = _mismatch(joined, day_N, list(test.arms.values()))
    return Reading(
        test.name,
        int(day_N.min()),
        int(day_N.max()),
        window,
        joined.counts,
        arms,
        metric,
        comparisons,
        mismatch_p,
        chi_squared_p,
        _shadow(joined),
    )


def _figures(joined: Joined, number: int, name: str, share: float, loss_N: np.ndarray) -> ArmFigures:
    of_arm = joined.arm_N == number
    _, unit_N = np.unique(joined.unit_N[of_arm], return_inverse=True)
    clicked_N, score_N = joined.clicked_N[of_arm], joined.score_N[of_arm]
    n_U, clicks_U = np.bincount(unit_N).astype(float), np.bincount(unit_N, clicked_N)
    rate, variance = ratio_of_sums(clicks_U, n_U)
    loss, loss_variance = ratio_of_sums(np.bincount(unit_N, loss_N[of_arm]), n_U)
    calibration, calibration_variance = ratio_of_sums(clicks_U, np.bincount(unit_N, score_N))
    auc, auc_error = clustered_auc(score_N, clicked_N, unit_N)
    factor, correlation = design_effect(variance, rate * (1 - rate), n_U)
    order = np.argsort(score_N, kind="stable")
    parts = [part for part in np.array_split(order, 10) if len(part)]
    return ArmFigures(
        name,
        share,
        len(n_U),
        len(unit_N),
        int(clicked_N.sum()),
        float(rate),
        math.sqrt(variance),
        float(loss),
        math.sqrt(loss_variance),
        float(loss_N[of_arm].std()),
        auc,
        auc_error,
        float(calibration),
        math.sqrt(calibration_variance),
        factor,
        correlation,
        float(n_U.mean()),
        float(n_U.std() / n_U.mean()),
        joined.versions.get(name, []),
        [(float(score_N[part].mean()), float(clicked_N[part].mean())) for part in parts],
    )


def _mismatch(joined: Joined, day_N: np.ndarray, shares: Sequence[float]) -> tuple[float, float]:
    """P-values for sample ratio mismatch: one that is valid at every daily look, and that of a chi-squared test for one look."""
    units, first = np.unique(joined.unit_N, return_index=True)
    arm_U, day_U = joined.arm_U[units], day_N[first] - day_N.min()
    counts_DA = np.zeros((int(day_N.max() - day_N.min()) + 1, len(shares)))
    np.add.at(counts_DA, (day_U, arm_U), 1)
    planned = [number for number, share in enumerate(shares) if share > 0]
    if counts_DA[:, [number for number in range(len(shares)) if number not in planned]].any():
        return 0.0, 0.0
    if len(planned) < 2:
        return 1.0, 1.0
    counts_DA = counts_DA[:, planned].cumsum(0)
    share_A = np.array([shares[number] for number in planned])
    expected_A = counts_DA[-1].sum() * share_A / share_A.sum()
    statistic = float((np.square(counts_DA[-1] - expected_A) / expected_A).sum())
    return float(ratio_mismatch_p(counts_DA, list(share_A))[-1]), float(chi2.sf(statistic, len(planned) - 1))


def _shadow(joined: Joined) -> tuple[int, float, float, float, float] | None:
    scored = ~np.isnan(joined.shadow_N)
    clicked = joined.clicked_N[scored]
    if not clicked.any() or clicked.all():
        return None

    def of(score_N: np.ndarray) -> tuple[float, float]:
        auc, _ = clustered_auc(score_N[scored], clicked, joined.unit_N[scored])
        return auc, float(loss_rows(score_N[scored], clicked).mean())

    return (int(scored.sum()), *of(joined.shadow_N), *of(joined.score_N))


def loss_rows(score_N: np.ndarray, clicked_N: np.ndarray) -> np.ndarray:
    """Cross-entropy of each row."""
    p_N = np.clip(score_N, TINY, 1 - TINY)
    return np.where(clicked_N, -np.log(p_N), -np.log1p(-p_N))
