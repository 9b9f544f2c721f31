"""The size of an online test against simulation."""

import numpy as np
import pytest

from dmoe.report.ab_test import click_rate_at, rows_needed, sizes


def test_a_test_of_that_size_has_that_power():
    rate_a, rate_b = 0.12, 0.10
    rows = rows_needed(rate_a - rate_b, rate_a * (1 - rate_a) + rate_b * (1 - rate_b))
    assert rows == pytest.approx(3842, abs=8)
    rng = np.random.default_rng(0)
    clicks = [rng.binomial(rows, rate, 4000) / rows for rate in (rate_a, rate_b)]
    error = np.sqrt(sum(x * (1 - x) / rows for x in clicks))
    assert np.mean(np.abs(clicks[0] - clicks[1]) > 1.96 * error) == pytest.approx(0.8, abs=0.03)


def test_no_difference_needs_no_test():
    assert rows_needed(0.0, 1.0) is None


def test_click_rate_of_the_best():
    logit = np.array([3.0, 1.0, 2.0, 0.0])
    assert click_rate_at(logit, np.array([True, False, False, True]), 0.5) == 0.5


def test_a_paired_shadow_test_needs_fewer_rows_than_two_arms():
    rng = np.random.default_rng(1)
    labels = rng.random(5000) < 0.2
    good = rng.normal(size=5000) + labels
    worse = good + 0.3 * rng.normal(size=5000)
    loss = [np.logaddexp(0, np.where(labels, -x, x)) for x in (good, worse)]
    paired, arms, clicks = sizes(good, worse, loss[0], loss[1], labels, 0.1)
    assert paired.rows < arms.rows
    assert clicks.difference == pytest.approx(click_rate_at(good, labels, 0.1) - click_rate_at(worse, labels, 0.1))
