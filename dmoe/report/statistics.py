"""Confidence intervals and tests for few seeds and for many rows: Student's t, DeLong, bootstrap. Uses only numpy.

Shapes: N rows, P of them positive, Q negative, S seeds.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95
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
    def sign(self) -> int:
        """1 or -1 if the whole interval is above or below 0; otherwise 0, not resolved."""
        if self.low is None or self.high is None:
            return 0
        return 1 if self.low > 0 else -1 if self.high < 0 else 0


def t_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """Student's t interval for the mean of independent values, and the two-sided p-value for a mean of 0."""
    x = np.asarray([value for value in values if value is not None and math.isfinite(value)], float)
    if len(x) < 2:
        return Interval(float(x.mean()) if len(x) else math.nan, None, None, None, len(x))
    mean, error = float(x.mean()), float(x.std(ddof=1) / math.sqrt(len(x)))
    half = t_quantile((1 + confidence) / 2, len(x) - 1) * error
    p = 2 * (1 - t_cdf(abs(mean) / error, len(x) - 1)) if error > 0 else (1.0 if mean == 0 else 0.0)
    return Interval(mean, mean - half, mean + half, p, len(x), len(x) - 1)


def t_cdf(t: float, degrees: float) -> float:
    """P(T <= t) for Student's t distribution, by the regularized incomplete beta function."""
    tail = 0.5 * incomplete_beta(degrees / (degrees + t * t), degrees / 2, 0.5)
    return 1 - tail if t >= 0 else tail


@functools.lru_cache(maxsize=1024)
def t_quantile(probability: float, degrees: float) -> float:
    """The t with P(T <= t) = probability, by bisection."""
    if probability < 0.5:
        return -t_quantile(1 - probability, degrees)
    low, high = 0.0, 2.0
    while t_cdf(high, degrees) < probability:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if t_cdf(middle, degrees) < probability else (low, middle)
    return (low + high) / 2


def incomplete_beta(x: float, a: float, b: float) -> float:
    """I_x(a, b) by Lentz's continued fraction (Numerical Recipes, 6.4)."""
    if x <= 0 or x >= 1:
        return min(max(x, 0.0), 1.0)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    # The continued fraction converges fast only for smaller x.
    if x > (a + 1) / (a + b + 2):
        return 1 - front * _beta_fraction(1 - x, b, a) / b
    return front * _beta_fraction(x, a, b) / a


def _beta_fraction(x: float, a: float, b: float) -> float:
    tiny = 1e-300

    def safe(value: float) -> float:
        return value if abs(value) > tiny else tiny

    c, d = 1.0, 1 / safe(1 - (a + b) * x / (a + 1))
    result = d
    for m in range(1, 500):
        for factor in (m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)), -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))):
            d, c = 1 / safe(1 + factor * d), safe(1 + factor / c)
            result *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return result


def normal_quantile(probability: float) -> float:
    """Quantile of the standard normal distribution, by bisection of the error function."""
    low, high = -40.0, 40.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if (1 + math.erf(middle / math.sqrt(2))) / 2 < probability else (low, middle)
    return (low + high) / 2


def normal_interval(mean: float, error: float, count: int, confidence: float = CONFIDENCE) -> Interval:
    """Normal interval from a standard error that is estimated from many values."""
    half = normal_quantile((1 + confidence) / 2) * error
    p = math.erfc(abs(mean) / error / math.sqrt(2)) if error > 0 else (1.0 if mean == 0 else 0.0)
    return Interval(mean, mean - half, mean + half, p, count)


def equivalence(interval: Interval, margin: float) -> float | None:
    """Two one-sided tests (TOST) for a mean within +-margin: the larger of the two p-values. None without an interval.

    Args:
        interval: from `t_interval` (has `degrees`) or `normal_interval`.
        margin: > 0; smaller differences count as none.
    """
    if interval.low is None or interval.high is None:
        return None
    degrees, half = interval.degrees, (interval.high - interval.low) / 2
    if half == 0:
        return 0.0 if abs(interval.mean) < margin else 1.0
    level = (1 + CONFIDENCE) / 2
    error = half / (normal_quantile(level) if degrees is None else t_quantile(level, degrees))
    nearest_end = (margin - abs(interval.mean)) / error
    return 0.5 * math.erfc(nearest_end / math.sqrt(2)) if degrees is None else 1 - t_cdf(nearest_end, degrees)


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


def bootstrap(values_N: np.ndarray, resamples: int = 2000, seed: int = 0, confidence: float = CONFIDENCE) -> Interval:
    """The mean over rows, with its percentile bootstrap interval.

    More than 20,000 rows are first shuffled and averaged in blocks, which does not change the variance of the mean.
    """
    rng, x = np.random.default_rng(seed), np.asarray(values_N, np.float64)
    if len(x) > 2 * BLOCKS:
        blocks = BLOCKS
        size = len(x) // blocks
        x = rng.permutation(x)[: blocks * size].reshape(blocks, size).mean(1)
    means = np.array([x[rng.integers(0, len(x), len(x))].mean() for _ in range(resamples)])
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    mean = float(np.mean(values_N))
    # The p-value inverts the interval: it is twice the share of resamples on the far side of 0.
    p = 2 * min((np.sum(means <= 0) + 1) / (resamples + 1), (np.sum(means >= 0) + 1) / (resamples + 1))
    return Interval(mean, float(low), float(high), min(float(p), 1.0), len(values_N))


def bootstrap_auc(scores_N: np.ndarray, labels_N: np.ndarray, auc: Callable[[np.ndarray, np.ndarray], float], resamples: int) -> np.ndarray:
    """AUCs of resampled rows. Slow; the reference for tests of DeLong."""
    rng, rows = np.random.default_rng(0), len(labels_N)
    drawn = (rng.integers(0, rows, rows) for _ in range(resamples))
    return np.array([auc(scores_N[rows_N], labels_N[rows_N]) for rows_N in drawn])


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
