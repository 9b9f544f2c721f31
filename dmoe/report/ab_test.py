"""The number of impressions that an online A/B test needs to detect the difference between the offline scores of two runs.

There are three kinds of tests, which need very different traffic. Each result states its assumptions.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

SIGNIFICANCE, POWER = 0.05, 0.8


@dataclass(frozen=True)
class AbTest:
    """A test needs `rows` impressions, in each arm if there are two arms. None if the runs do not differ."""

    kind: str
    rows: int | None
    difference: float
    says: str


def sizes(
    logit_a: np.ndarray, logit_b: np.ndarray, loss_a: np.ndarray, loss_b: np.ndarray, labels: np.ndarray, share: float
) -> list[AbTest]:
    """The sizes of the tests for power 0.8 at two-sided significance 0.05.

    Args:
        logit_a, logit_b: [N] logits of both runs on the same rows.
        loss_a, loss_b: [N] cross-entropies of both runs.
        labels: [N] bool.
        share: share of the candidates that a ranking shows, for the test of the click rate.
    """
    paired = loss_a - loss_b
    delta = float(paired.mean())
    arms = float(loss_a.var(ddof=1) + loss_b.var(ddof=1))
    rate_a, rate_b = click_rate_at(logit_a, labels, share), click_rate_at(logit_b, labels, share)
    spread = rate_a * (1 - rate_a) + rate_b * (1 - rate_b)
    return [
        AbTest(
            "shadow test on logloss",
            rows_needed(delta, float(paired.var(ddof=1))),
            delta,
            "both models score the same live impressions, and each row's losses are compared; shows calibration and ranking,"
            " not clicks won",
        ),
        AbTest(
            "two arms, logloss of each arm's own impressions",
            rows_needed(delta, arms),
            delta,
            "each model scores its own traffic; assumes that the arms' impressions are as hard as these rows",
        ),
        AbTest(
            f"two arms, click rate of the top {share:.0%}",
            rows_needed(rate_a - rate_b, spread),
            rate_a - rate_b,
            f"a ranking that shows the best {share:.0%} of such candidates would be clicked at {rate_a:.4f} and {rate_b:.4f};"
            " these rows were"
            " chosen by the logging policy, so take it for the order of magnitude; impressions of one user are not"
            " independent, which takes more",
        ),
    ]


def rows_needed(difference: float, variance: float) -> int | None:
    """(z_{1-a/2} + z_power)^2 * variance / difference^2. `variance` is that of a row's paired difference, or the sum over both arms."""
    if difference == 0 or not math.isfinite(difference):
        return None
    z = ndtri(1 - SIGNIFICANCE / 2) + ndtri(POWER)
    return math.ceil(z * z * variance / difference**2)


def click_rate_at(logit: np.ndarray, labels: np.ndarray, share: float) -> float:
    """The click rate among the share `share` of the rows with the highest scores."""
    count = max(1, round(len(logit) * share))
    best = np.argpartition(-logit, count - 1)[:count]
    return float(labels[best].mean())
