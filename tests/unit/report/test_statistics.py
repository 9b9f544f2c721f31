"""Intervals and tests against tables, brute force, and each other."""

import math

import numpy as np
import pytest
from scipy import stats

from dmoe.metrics.auc import exact_auc
from dmoe.report.statistics import (
    bootstrap,
    delong,
    equivalence,
    holm,
    logloss_rows,
    normal_interval,
    placements,
    rank_correlation,
    t_interval,
)


@pytest.mark.parametrize("margin", [0.05, 0.4, 2.0])
def test_equivalence_is_the_larger_of_two_one_sided_tests(margin):
    x = np.random.default_rng(3).normal(0.2, 0.5, 6)
    above, below = (stats.ttest_1samp(x, end, alternative=side).pvalue for end, side in ((-margin, "greater"), (margin, "less")))
    assert equivalence(t_interval(list(x)), margin) == pytest.approx(max(above, below), rel=1e-6)
    above, below = stats.norm.sf((0.2 + margin) / 0.3), stats.norm.cdf((0.2 - margin) / 0.3)
    assert equivalence(normal_interval(0.2, 0.3, 100), margin) == pytest.approx(max(above, below), rel=1e-6)
    assert equivalence(t_interval([1.0]), margin) is None
    assert [equivalence(t_interval([0.1, 0.1]), one) for one in (0.2, 0.05)] == [0.0, 1.0]


def test_t_interval_by_hand():
    interval = t_interval([1.0, 2.0, 3.0, 4.0])
    half = 3.182446 * np.std([1, 2, 3, 4], ddof=1) / 2
    assert (interval.mean, interval.low, interval.high) == pytest.approx((2.5, 2.5 - half, 2.5 + half), abs=1e-5)
    assert interval.sign == 1
    assert t_interval([0.3]).low is None
    assert t_interval([0.1, -0.1, 0.05]).sign == 0


def test_t_intervals_cover_as_often_as_they_say():
    rng = np.random.default_rng(0)
    hits = sum((i := t_interval(list(rng.normal(3.0, 2.0, 5)))).low < 3.0 < i.high for _ in range(2000))
    assert hits / 2000 == pytest.approx(0.95, abs=0.015)


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(1)
    labels = rng.random(600) < 0.3
    base = rng.normal(size=600) + labels
    # Rounded, so that there are ties.
    return np.round(base + rng.normal(size=600), 1), np.round(base + 0.7 * rng.normal(size=600) + 0.2 * labels, 1), labels


def test_placements_are_what_all_pairs_say(rows):
    scores, _, labels = rows
    positives, negatives = scores[labels], scores[~labels]
    wins = (positives[:, None] > negatives[None, :]) + 0.5 * (positives[:, None] == negatives[None, :])
    placed = placements(scores, labels)
    np.testing.assert_allclose(placed.of_positives_P, wins.mean(1), atol=1e-12)
    np.testing.assert_allclose(placed.of_negatives_Q, wins.mean(0), atol=1e-12)
    assert placed.mean == pytest.approx(exact_auc(scores, labels), abs=1e-12)


def test_delong_equals_its_covariances_by_brute_force(rows):
    one, other, labels = rows
    parts = []
    for scores in (one, other):
        wins = (scores[labels][:, None] > scores[~labels]) + 0.5 * (scores[labels][:, None] == scores[~labels])
        parts.append((wins.mean(1), wins.mean(0)))
    variance = 0.0
    for component in (0, 1):
        covariance = np.cov(parts[0][component], parts[1][component])
        variance += (covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]) / len(parts[0][component])
    interval = delong(one, other, labels)
    assert (interval.high - interval.low) / 2 / 1.959964 == pytest.approx(math.sqrt(variance), rel=1e-6)
    assert interval.mean == pytest.approx(exact_auc(one, labels) - exact_auc(other, labels), abs=1e-12)


def test_delong_agrees_with_the_bootstrap(rows):
    one, other, labels = rows
    rng = np.random.default_rng(0)
    drawn = [rng.integers(0, len(labels), len(labels)) for _ in range(600)]
    resampled = np.array([exact_auc(one[n], labels[n]) - exact_auc(other[n], labels[n]) for n in drawn])
    interval = delong(one, other, labels)
    assert (interval.high - interval.low) / 2 / 1.959964 == pytest.approx(resampled.std(), rel=0.15)


def test_equal_scores_do_not_differ(rows):
    interval = delong(rows[0], rows[0], rows[2])
    assert (interval.mean, interval.sign, interval.p) == (0.0, 0, 1.0)


@pytest.mark.parametrize("count", [3000, 50_001])
def test_bootstrap_agrees_with_the_central_limit(count):
    values = np.random.default_rng(2).exponential(size=count) - 0.9
    interval = bootstrap(values, resamples=1500)
    assert (interval.high - interval.low) / 2 == pytest.approx(1.96 * values.std() / math.sqrt(count), rel=0.1)
    assert interval.mean == pytest.approx(values.mean())


def test_logloss_of_a_row():
    logit, labels = np.array([0.0, 3.0, -800.0], np.float32), np.array([True, False, True])
    expected = [math.log(2), math.log1p(math.exp(3)), 800.0]
    np.testing.assert_allclose(logloss_rows(logit, labels), expected, rtol=1e-12)


def test_holm_by_hand():
    assert holm([0.01, None, 0.04, 0.03]) == pytest.approx([0.03, None, 0.06, 0.06])


def test_rank_correlation():
    assert rank_correlation([1, 2, 3, 4], [10, 20, 30, 5]) == pytest.approx(-0.2)
    assert math.isnan(rank_correlation([1, 1], [2, 3]))
