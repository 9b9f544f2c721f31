"""Intervals and tests on few numbers and on many rows: Student's t, DeLong, bootstrap, Holm.

Shapes: N rows, P of them positive, Q negative, S seeds.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

CONFIDENCE = 0.95
BLOCKS = 10_000
NORMAL = NormalDist()


@dataclass(frozen=True)
class Interval:
    """A mean with its confidence interval. `low` and `high` are None where it has none (a single value)."""

    mean: float
    low: float | None
    high: float | None
    p: float | None
    count: int

    @property
    def sign(self) -> int:
        """1 or -1 where the whole interval lies above or below 0, else 0: not resolved."""
        if self.low is None or self.high is None:
            return 0
        return 1 if self.low > 0 else -1 if self.high < 0 else 0


def t_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """Student's interval for the mean of independent values, and the two-sided p-value of its being 0."""
    x = np.asarray([value for value in values if value is not None and math.isfinite(value)], float)
    if len(x) < 2:
        return Interval(float(x.mean()) if len(x) else math.nan, None, None, None, len(x))
    from scipy.stats import t as student

    mean, error = float(x.mean()), float(x.std(ddof=1) / math.sqrt(len(x)))
    half = float(student.ppf((1 + confidence) / 2, len(x) - 1)) * error
    p = 2 * float(student.sf(abs(mean) / error, len(x) - 1)) if error > 0 else (1.0 if mean == 0 else 0.0)
    return Interval(mean, mean - half, mean + half, p, len(x))


def normal_interval(mean: float, error: float, count: int, confidence: float = CONFIDENCE) -> Interval:
    """From a standard error that is known well."""
    half = NORMAL.inv_cdf((1 + confidence) / 2) * error
    p = math.erfc(abs(mean) / error / math.sqrt(2)) if error > 0 else (1.0 if mean == 0 else 0.0)
    return Interval(mean, mean - half, mean + half, p, count)


@dataclass(frozen=True)
class Placements:
    """DeLong's structural components of an AUC: for a positive, the share of negatives below it, ties a half; for a negative, the share
    of positives above it. Both have the AUC as their mean, and
    components of several models on the same rows may be averaged or subtracted."""

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
        """Standard error of the mean over a new draw of rows."""
        return math.sqrt(sum(float(x.var(ddof=1)) / len(x) for x in (self.of_positives_P, self.of_negatives_Q)))


def placements(scores_N: np.ndarray, labels_N: np.ndarray) -> Placements:
    """The components of a model's AUC in O(N log N) (DeLong et al. 1988; Sun and Xu 2014).

    Args:
        scores_N: any float dtype; only their order matters.
        labels_N: bool, with both labels at least twice.
    """
    positives_P, negatives_Q = np.sort(scores_N[labels_N]), np.sort(scores_N[~labels_N])

    def below(sorted_scores: np.ndarray, of: np.ndarray) -> np.ndarray:
        return (np.searchsorted(sorted_scores, of, "left") + np.searchsorted(sorted_scores, of, "right")) / 2 / len(sorted_scores)

    return Placements(below(negatives_Q, scores_N[labels_N]), 1 - below(positives_P, scores_N[~labels_N]))


def delong(scores_a: np.ndarray, scores_b: np.ndarray, labels_N: np.ndarray) -> Interval:
    """The difference of two models' AUC, a less b, on the same rows."""
    difference = placements(scores_a, labels_N) - placements(scores_b, labels_N)
    return normal_interval(difference.mean, difference.error, len(labels_N))


def logloss_rows(logit_N: np.ndarray, labels_N: np.ndarray) -> np.ndarray:
    """Every row's cross-entropy, float64."""
    logit_N = logit_N.astype(np.float64)
    return np.logaddexp(0, np.where(labels_N, -logit_N, logit_N))


def bootstrap(values_N: np.ndarray, resamples: int = 2000, seed: int = 0, confidence: float = CONFIDENCE) -> Interval:
    """The mean of rows with its percentile interval over resampled rows.

    Above 20,000 rows they are first averaged in blocks of a random order, which leaves the variance of the mean as it is.
    """
    from scipy.stats import bootstrap as resample

    rng, x = np.random.default_rng(seed), np.asarray(values_N, np.float64)
    if len(x) > 2 * BLOCKS:
        blocks = BLOCKS
        size = len(x) // blocks
        x = rng.permutation(x)[: blocks * size].reshape(blocks, size).mean(1)
    found = resample((x,), np.mean, n_resamples=resamples, batch=64, confidence_level=confidence, method="percentile", rng=rng)
    means = found.bootstrap_distribution
    # By the interval's inversion: how far out 0 lies among the resamples.
    p = 2 * min((np.sum(means <= 0) + 1) / (resamples + 1), (np.sum(means >= 0) + 1) / (resamples + 1))
    low, high = found.confidence_interval
    return Interval(float(np.mean(values_N)), float(low), float(high), min(float(p), 1.0), len(values_N))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """P-values adjusted for so many questions asked at once (Holm 1979)."""
    order = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, index) in enumerate(order):
        largest = max(largest, min(1.0, p * (len(order) - rank)))
        adjusted[index] = largest
    return adjusted


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> float:
    """Spearman's, ties by their mean rank; NaN where one of them is constant."""
    from scipy.stats import spearmanr

    if min(np.ptp(values) for values in (x, y)) == 0:
        return math.nan
    return float(spearmanr(x, y).statistic)
