"""Confidence intervals and tests for few seeds and for many rows: Student's t, DeLong, bootstrap.

Shapes: N rows, P of them positive, Q negative, S seeds.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri, stdtr, stdtrit

CONFIDENCE = 0.95
UPPER = (1 + CONFIDENCE) / 2
"""Probability below the upper end of a two-sided interval."""
BLOCKS = 10_000


@dataclass(frozen=True)
class Interval:
    """A mean with its confidence interval. `low` and `high` are None if there is no interval (a single value). `degrees` are the degrees of
    freedom of Student's t; None for a normal interval."""

    mean: float
    low: float | None
    high: float | None
    p: float | None
    count: int
    degrees: int | None = None

    @property
    def half(self) -> float | None:
        """Half of the width."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2

    @property
    def sign(self) -> int:
        """1 or -1 if the whole interval is above or below 0; otherwise 0, not resolved."""
        if self.low is None or self.high is None:
            return 0
        return 1 if self.low > 0 else -1 if self.high < 0 else 0


def t_interval(values: Sequence[float]) -> Interval:
    """Student's t interval for the mean of independent values, and the two-sided p-value for a mean of 0."""
    x = np.asarray([value for value in values if value is not None and math.isfinite(value)], float)
    if len(x) < 2:
        return Interval(float(x.mean()) if len(x) else math.nan, None, None, None, len(x))
    mean, error = float(x.mean()), float(x.std(ddof=1) / math.sqrt(len(x)))
    half = float(stdtrit(len(x) - 1, UPPER)) * error
    p = 2 * float(stdtr(len(x) - 1, -abs(mean) / error)) if error > 0 else (1.0 if mean == 0 else 0.0)
    return Interval(mean, mean - half, mean + half, p, len(x), len(x) - 1)


def normal_interval(mean: float, error: float, count: int) -> Interval:
    """Normal interval from a standard error that is estimated from many values."""
    half = float(ndtri(UPPER)) * error
    p = math.erfc(abs(mean) / error / math.sqrt(2)) if error > 0 else (1.0 if mean == 0 else 0.0)
    return Interval(mean, mean - half, mean + half, p, count)


def equivalence(interval: Interval, margin: float) -> float | None:
    """Two one-sided tests (TOST) for a mean within +-margin: the larger of the two p-values. None without an interval.

    Args:
        interval: from `t_interval` (has `degrees`) or `normal_interval`.
        margin: > 0; smaller differences count as none.
    """
    degrees, half = interval.degrees, interval.half
    if half is None:
        return None
    if half == 0:
        return 0.0 if abs(interval.mean) < margin else 1.0
    error = half / float(ndtri(UPPER) if degrees is None else stdtrit(degrees, UPPER))
    nearest_end = (margin - abs(interval.mean)) / error
    return 0.5 * math.erfc(nearest_end / math.sqrt(2)) if degrees is None else float(stdtr(degrees, -nearest_end))


@dataclass(frozen=True)
class Placements:
    """DeLong's structural components of an AUC: for each positive row, the share of negatives with a lower score; for each negative row,
    the share of positives with a higher score; ties count half. The mean of either is the AUC. Components of several models on the same
    rows may be averaged or subtracted."""

    of_positives_P: np.ndarray
    of_negatives_Q: np.ndarray

    def __add__(self, other: "Placements") -> "Placements":
        return Placements(self.of_positives_P + other.of_positives_P, self.of_negatives_Q + other.of_negatives_Q)

    def __sub__(self, other: "Placements") -> "Placements":
        return Placements(self.of_positives_P - other.of_positives_P, self.of_negatives_Q - other.of_negatives_Q)

    def scaled(self, factor: float) -> "Placements":
        return Placements(self.of_positives_P * factor, self.of_negatives_Q * factor)

    @property
    def mean(self) -> float:
        return float(self.of_positives_P.mean())

    @property
    def error(self) -> float:
        """Standard error of the mean for a new sample of rows."""
        return math.sqrt(sum(float(x.var(ddof=1)) / len(x) for x in (self.of_positives_P, self.of_negatives_Q)))


def placements(scores_N: np.ndarray, labels_N: np.ndarray) -> Placements:
    """The components of the AUC of a model, in O(N log N) (DeLong et al. 1988; Sun and Xu 2014).

    Args:
        scores_N: any float dtype; only their order matters.
        labels_N: bool, at least two rows of each label.
    """
    positives_P, negatives_Q = np.sort(scores_N[labels_N]), np.sort(scores_N[~labels_N])

    def below(sorted_scores: np.ndarray, of: np.ndarray) -> np.ndarray:
        return (np.searchsorted(sorted_scores, of, "left") + np.searchsorted(sorted_scores, of, "right")) / 2 / len(sorted_scores)

    return Placements(below(negatives_Q, scores_N[labels_N]), 1 - below(positives_P, scores_N[~labels_N]))


def delong(scores_a: np.ndarray, scores_b: np.ndarray, labels_N: np.ndarray) -> Interval:
    """Interval of the AUC of model a minus that of model b, on the same rows."""
    difference = placements(scores_a, labels_N) - placements(scores_b, labels_N)
    return normal_interval(difference.mean, difference.error, len(labels_N))


def logloss_rows(logit_N: np.ndarray, labels_N: np.ndarray) -> np.ndarray:
    """Cross-entropy of each row, float64."""
    logit_N = logit_N.astype(np.float64)
    return np.logaddexp(0, np.where(labels_N, -logit_N, logit_N))


def bootstrap(values_N: np.ndarray, resamples: int = 2000) -> Interval:
    """The mean over rows, with its percentile bootstrap interval.

    More than 20,000 rows are first shuffled and averaged in blocks, which does not change the variance of the mean.
    """
    rng, x = np.random.default_rng(0), np.asarray(values_N, np.float64)
    if len(x) > 2 * BLOCKS:
        size = len(x) // BLOCKS
        x = rng.permutation(x)[: BLOCKS * size].reshape(BLOCKS, size).mean(1)
    means = np.array([x[rng.integers(0, len(x), len(x))].mean() for _ in range(resamples)])
    low, high = np.quantile(means, [1 - UPPER, UPPER])
    mean = float(np.mean(values_N))
    # The p-value inverts the interval: it is twice the share of resamples on the far side of 0.
    p = 2 * min((np.sum(means <= 0) + 1) / (resamples + 1), (np.sum(means >= 0) + 1) / (resamples + 1))
    return Interval(mean, float(low), float(high), min(float(p), 1.0), len(values_N))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """P-values adjusted for multiple tests (Holm 1979)."""
    order = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, index) in enumerate(order):
        largest = max(largest, min(1.0, p * (len(order) - rank)))
        adjusted[index] = largest
    return adjusted


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> float:
    """Spearman's rank correlation. Ties have their mean rank. NaN if x or y is constant."""
    ranks = []
    for values in (x, y):
        _, group, size = np.unique(np.asarray(values, float), return_inverse=True, return_counts=True)
        ranks.append((np.cumsum(size) - (size - 1) / 2)[group])
    if min(np.ptp(rank) for rank in ranks) == 0:
        return math.nan
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])
