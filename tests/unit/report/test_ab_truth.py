"""The promises of an A/B test, kept on simulated ones whose truth is known: rows of a unit are alike, units come back, and it is looked at
every day.

Shapes: T tests, U units of an arm, D days.
"""

import numpy as np
import pytest
from scipy import integrate, stats

from dmoe.errors import UserError
from dmoe.report.ab.clusters import clustered_auc, design_effect, effect, ratio_of_sums
from dmoe.report.ab.plan import make_plan, sequential_drift
from dmoe.report.ab.plan_options import PlanOptions
from dmoe.report.ab.sequential import always_valid_p, at_looks, boundary, ratio_mismatch_p, tightest
from dmoe.report.statistics import placements

ALPHA, DAYS, ROWS, SHAPE, CORRELATION = 0.05, 14, 7.0, 2.0, 0.1
SPREAD = (1 / ROWS + 1 / SHAPE) ** 0.5
"""Of the rows of a unit, which are Poisson with a gamma-distributed mean."""


def arm(draw: np.random.Generator, tests: int, units: int, days: int, rate: float, back: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Clicks and rows up to each day, [T, D, U]; `back`: units come back on other days, else each has its rows on one."""
    strength = 1 / CORRELATION - 1
    p_TU = draw.beta(rate * strength, (1 - rate) * strength, (tests, units))
    often_TU = draw.gamma(SHAPE, ROWS / SHAPE, (tests, units))
    if back:
        n_TDU = draw.poisson(often_TU[:, None, :] / days, (tests, days, units))
    else:
        n_TDU = draw.poisson(often_TU)[:, None, :] * (np.arange(days)[:, None] == np.arange(units) % days)
    x_TDU = draw.binomial(n_TDU, p_TU[:, None, :])
    return x_TDU.cumsum(1).astype(np.float32), n_TDU.cumsum(1).astype(np.float32)


def simulated(tests: int, units: int, days: int, rates: tuple[float, float], seed: int, back: bool = True) -> dict[str, np.ndarray]:
    """Estimates of the difference and their variances, by units and as of independent rows, [T, D]."""
    draw, found = np.random.default_rng(seed), []
    for _ in range(0, tests, 50):
        arms = [arm(draw, 50, units, days, rate, back) for rate in rates]
        one = effect(*(ratio_of_sums(x_TDU, n_TDU) for x_TDU, n_TDU in arms))
        means = [(x.sum(-1) / n.sum(-1), n.sum(-1)) for x, n in arms]
        found.append((one.absolute, one.variance, sum(mean * (1 - mean) / rows for mean, rows in means)))
    parts = [np.concatenate(part).astype(float) for part in zip(*found, strict=True)]
    return dict(zip(("estimate", "variance", "naive"), parts, strict=True))


@pytest.mark.parametrize("back", [True, False])
def test_of_a_thousand_tests_of_equal_arms_at_most_one_in_twenty_finds_a_difference_however_often_it_is_looked_at(back):
    found = simulated(1000, 300, DAYS, (0.2, 0.2), seed=1, back=back)
    tau_T = DAYS / found["variance"][:, 0] / tightest(ALPHA)
    half_TD, p_TD = at_looks(found["estimate"], found["variance"], tau_T, ALPHA)
    crossed_TD = np.abs(found["estimate"]) > half_TD
    false_positives = crossed_TD.any(1).mean()
    assert 0 < false_positives <= ALPHA
    np.testing.assert_array_equal(p_TD[:, -1] < ALPHA, crossed_TD.any(1))
    # What an interval for one look would do, even by units: one test in five or so.
    at_once = np.abs(found["estimate"]) > 1.96 * np.sqrt(found["variance"])
    assert at_once.any(1).mean() > 0.15
    assert abs(at_once[:, -1].mean() - ALPHA) < 0.02


def test_intervals_by_units_hold_the_truth_and_intervals_by_rows_do_not():
    truth = 0.05
    found = simulated(1000, 300, DAYS, (0.2, 0.2 + truth), seed=2)
    error = np.abs(found["estimate"] - truth)
    by_units = (error[:, -1] < 1.96 * np.sqrt(found["variance"][:, -1])).mean()
    by_rows = (error[:, -1] < 1.96 * np.sqrt(found["naive"][:, -1])).mean()
    assert abs(by_units - 0.95) < 0.02
    assert by_rows < 0.90
    half_TD, _ = at_looks(found["estimate"], found["variance"], DAYS / found["variance"][:, 0] / tightest(ALPHA), ALPHA)
    assert (error < half_TD).all(1).mean() >= 1 - ALPHA


@pytest.mark.parametrize("power", [0.5, 0.8])
def test_a_test_of_the_planned_size_has_the_planned_power(power):
    options = PlanOptions(baseline=0.3, effect=0.05, rows_a_unit=ROWS, spread=SPREAD, correlation=CORRELATION, traffic=700, power=power)
    plan = make_plan(options)
    assert plan.sequential.rows > plan.fixed.rows
    assert 5 <= plan.sequential.days <= 30
    found = simulated(500, plan.sequential.units // 2, plan.sequential.days, (0.3, 0.35), seed=3)
    half_TD, _ = at_looks(found["estimate"], found["variance"], np.full(500, plan.information / tightest(ALPHA)), ALPHA)
    crossed_TD = found["estimate"] > half_TD
    assert abs(crossed_TD.any(1).mean() - power) < 0.06
    days_T = np.where(crossed_TD.any(1), crossed_TD.argmax(1) + 1, plan.sequential.days)
    # Units that come back tell most on their first days.
    assert 0.75 < days_T.mean() / plan.sequential.days_expected < 1.03
    once = simulated(500, plan.fixed.units // 2, 1, (0.3, 0.35), seed=4)
    assert abs((once["estimate"] > 1.96 * np.sqrt(once["variance"])).mean() - power) < 0.06


def test_the_size_for_one_look_is_the_textbook_s():
    plan = make_plan(PlanOptions(baseline=0.05, relative=0.04, traffic=1000))
    z = stats.norm.ppf(0.975) + stats.norm.ppf(0.8)
    per_arm = z**2 * (0.05 * 0.95 + 0.052 * 0.948) / 0.002**2
    assert plan.fixed.rows == pytest.approx(2 * per_arm, abs=2)
    assert plan.fixed.days == np.ceil(2 * per_arm / 1000)
    uneven = make_plan(PlanOptions(baseline=0.05, relative=0.04, traffic=1000, shares="0.1,0.3"))
    assert uneven.fixed.rows == pytest.approx(0.4 * z**2 * (0.05 * 0.95 / 0.1 + 0.052 * 0.948 / 0.3) / 0.002**2, abs=2)
    loss = make_plan(PlanOptions(metric="logloss", baseline=0.4, effect=-0.004, deviation=0.5, traffic=1000))
    assert loss.fixed.rows == pytest.approx(4 * z**2 * 0.25 / 0.004**2, abs=2)


def test_the_drift_of_one_and_of_two_looks_is_the_normal_distribution_s():
    bound = float(boundary(tightest(ALPHA), ALPHA))
    drift, spent = sequential_drift(1, ALPHA, 0.8)
    assert drift == pytest.approx(bound + stats.norm.ppf(0.8), abs=0.02)
    assert spent == 1
    drift, spent = sequential_drift(2, ALPHA, 0.8)
    half, whole = (float(boundary(tightest(ALPHA) * u, ALPHA)) for u in (0.5, 1.0))
    joint = stats.multivariate_normal([drift * 0.5**0.5, drift], [[1, 0.5**0.5], [0.5**0.5, 1]])
    assert 1 - joint.cdf([half, whole]) == pytest.approx(0.8, abs=0.01)
    assert spent == pytest.approx(1 - 0.5 * stats.norm.sf(half - drift * 0.5**0.5), abs=0.01)


def test_the_p_value_is_one_over_the_mixture_s_likelihood_ratio():
    def mixed(theta: float, total: float, information: float, tau: float) -> float:
        return float(np.exp(theta * total - theta**2 * information / 2) * stats.norm.pdf(theta, 0, tau**-0.5))

    for z, information, tau in ((2.0, 30.0, 10.0), (3.5, 5.0, 10.0)):
        ratio, _ = integrate.quad(mixed, -8, 8, (z * information**0.5, information, tau))
        assert always_valid_p(z, information / tau) == pytest.approx(min(1, 1 / ratio), rel=1e-6)
    assert always_valid_p(float(boundary(3.0, 0.01)), 3.0) == pytest.approx(0.01)
    ratios = np.linspace(1, 40, 4000)
    assert ratios[boundary(ratios, ALPHA).argmin()] == pytest.approx(tightest(ALPHA), abs=0.02)


def test_a_planted_ratio_mismatch_is_found_and_none_where_none_is():
    draw = np.random.default_rng(5)
    fair_TD = draw.binomial(8000, 0.3, (2000, DAYS)).cumsum(1)
    sizes = 8000 * np.arange(1, DAYS + 1)
    found = np.array([ratio_mismatch_p(np.stack([one, sizes - one], 1), [0.3, 0.7])[-1] for one in fair_TD])
    assert (found < 0.05).mean() <= 0.05
    assert (found < 0.001).mean() <= 0.003
    # One unit in twenty of the first arm is lost.
    whole_T = fair_TD[:200, -1]
    lost_T2 = np.stack([draw.binomial(whole_T, 0.95), sizes[-1] - whole_T], 1)
    assert np.mean([ratio_mismatch_p(one[None], [0.3, 0.7])[-1] < 0.001 for one in lost_T2]) > 0.9
    assert (np.diff(ratio_mismatch_p(np.array([[5, 9], [50, 90], [300, 700]]), [0.3, 0.7])) <= 0).all()


def test_the_ratio_mismatch_is_the_beta_binomial_over_the_binomial():
    counts = [3300, 6700]
    factor = stats.betabinom.pmf(3300, 10_000, 300, 700) / stats.binom.pmf(3300, 10_000, 0.3)
    assert factor > 1
    assert ratio_mismatch_p(np.array([counts]), [0.3, 0.7])[0] == pytest.approx(1 / factor, rel=1e-6)


def test_of_units_of_one_row_the_variance_is_that_of_a_mean_and_the_auc_s_is_delong_s():
    draw = np.random.default_rng(6)
    x = draw.random(500)
    assert ratio_of_sums(x, np.ones(500)) == pytest.approx((x.mean(), x.var(ddof=1) / 500))
    label, score = draw.random(500) < 0.3, draw.random(500)
    auc, error = clustered_auc(score, label, np.arange(500))
    assert auc == pytest.approx(placements(score, label).mean)
    assert error == pytest.approx(placements(score, label).error, rel=0.01)
    # The same row ten times is no more than the row.
    again, same_error = clustered_auc(np.repeat(score, 10), np.repeat(label, 10), np.repeat(np.arange(500), 10))
    assert (again, same_error) == pytest.approx((auc, error), rel=1e-6)


def test_a_relative_effect_covers_its_truth():
    draw = np.random.default_rng(7)
    a, b = draw.normal(0.2, 0.01, 20_000), draw.normal(0.22, 0.012, 20_000)
    one = effect((a, 0.01**2), (b, 0.012**2))
    assert (np.abs(one.relative - 0.1) < 1.96 * np.sqrt(one.relative_variance)).mean() == pytest.approx(0.95, abs=0.01)


def test_the_design_effect_gives_back_the_planted_correlation():
    draw = np.random.default_rng(8)
    x_TDU, n_TDU = arm(draw, 1, 40_000, 1, 0.2)
    x_U, n_U = x_TDU[0, 0].astype(float), n_TDU[0, 0].astype(float)
    mean, variance = ratio_of_sums(x_U, n_U)
    factor, correlation = design_effect(variance, mean * (1 - mean), n_U)
    assert correlation == pytest.approx(CORRELATION, rel=0.1)
    plan = make_plan(PlanOptions(baseline=0.2, effect=0.01, rows_a_unit=ROWS, spread=SPREAD, correlation=CORRELATION, traffic=1e5))
    assert plan.design_effect == pytest.approx(factor, rel=0.1)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"baseline": 0.0, "effect": 0.1}, "--baseline"),
        ({"baseline": 0.1}, "--effect"),
        ({"baseline": 0.1, "effect": 0.1, "relative": 0.1}, "--relative"),
        ({"baseline": 0.1, "effect": 0.95}, "--effect"),
        ({"baseline": 0.1, "effect": 0.1, "traffic": 0.0}, "--traffic"),
        ({"baseline": 0.1, "effect": 1e-9}, "--effect"),
        ({"baseline": 0.1, "effect": 0.1, "shares": "0.9,0.2"}, "--shares"),
        ({"baseline": 0.1, "effect": 0.1, "power": 1.0}, "--power"),
        ({"baseline": 0.1, "effect": 0.1, "metric": "logloss"}, "--deviation"),
        ({"baseline": 0.1, "effect": float("nan")}, "--effect"),
    ],
)
def test_a_wrong_option_is_named(options, named):
    with pytest.raises(UserError, match=named):
        make_plan(PlanOptions(**{"traffic": 1e4} | options))
