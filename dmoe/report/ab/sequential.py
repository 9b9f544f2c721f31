"""Always-valid confidence intervals and an always-valid test of sample ratio mismatch: they may be looked at any number of times.

An estimate with variance V has information I = 1 / V. As information accumulates, I * estimate behaves like a Brownian motion, so the
normal-mixture boundary holds for all times together: the probability that the interval estimate +- sqrt(V) * boundary(I / tau) misses the
true value at any look is at most alpha (Robbins 1970; the asymptotic confidence sequence of Waudby-Smith et al. 2021, eq. 15, with
t * rho^2 = I / tau). Like every normal interval, it needs large samples. tau determines at which information the interval is tightest. It
must be fixed before the data are looked at.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import gammaln

STRENGTH = 1000.0
"""Concentration of the prior of `ratio_mismatch_p`. With a larger value, the test is most sensitive to smaller mismatches."""


def tightest(alpha: float) -> float:
    """The ratio r = I / tau with the tightest interval: the solution of r = log(1 + r) - 2 log(alpha)."""
    r = 8.0
    for _ in range(100):
        r = math.log1p(r) - 2 * math.log(alpha)
    return r


def boundary(ratio: Any, alpha: float) -> Any:
    """Half-width of the interval in standard errors.

    Args:
        ratio: I / tau, any shape, > 0.

    Example:
        >>> round(float(boundary(tightest(0.05), 0.05)), 3)  # at its best; an interval for one look has 1.96
        3.035
    """
    return np.sqrt((1 + 1 / ratio) * (np.log1p(ratio) - 2 * math.log(alpha)))


def always_valid_p(z: Any, ratio: Any) -> Any:
    """The alpha at which the interval just touches 0. The minimum over all looks so far is an always-valid p-value.

    Args:
        z: estimate divided by its standard error.
        ratio: I / tau, the shape of z.
    """
    return np.minimum(1.0, np.sqrt(1 + ratio) * np.exp(-np.square(z) * ratio / (2 * (1 + ratio))))


def at_looks(estimate_D: np.ndarray, variance_D: np.ndarray, tau: Any, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """Half-width of the interval and minimum p-value so far, at each look: [..., D].

    Args:
        tau: [...], fixed before the first look.
    """
    ratio_D = 1 / (variance_D * np.asarray(tau)[..., None])
    p_D = always_valid_p(estimate_D / np.sqrt(variance_D), ratio_D)
    return np.sqrt(variance_D) * boundary(ratio_D, alpha), np.minimum.accumulate(p_D, -1)


def ratio_mismatch_p(counts_DA: np.ndarray, shares_A: Sequence[float]) -> np.ndarray:
    """Always-valid p-values for sample ratio mismatch: units are in the arms by their shares (Lindon and Malek 2022).

    p is 1 / the largest Bayes factor so far of a Dirichlet prior around the shares against the shares themselves. It is exact, not
    asymptotic.

    Args:
        counts_DA: [looks, arms] cumulative number of units at each look.
        shares_A: shares of the arms, on any scale.

    Returns:
        P-values, [looks].
    """
    share_A = np.asarray(shares_A, float) / np.sum(shares_A)
    prior_A, n_DA = STRENGTH * share_A, np.asarray(counts_DA, float)
    log_factor_D = (gammaln(prior_A + n_DA) - gammaln(prior_A)).sum(-1) - gammaln(STRENGTH + n_DA.sum(-1)) + gammaln(STRENGTH)
    log_factor_D -= (n_DA * np.log(share_A)).sum(-1)
    return np.exp(-np.maximum(np.maximum.accumulate(log_factor_D), 0))
