"""Intervals and a ratio check that hold however often they are looked at.

An estimate with variance V has information I = 1 / V. While it gathers information, I * estimate moves as a Brownian motion does, so the
normal-mixture boundary holds for all times together: the interval estimate +- sqrt(V) * boundary(I / tau) misses the truth at any look with
probability alpha at most (Robbins 1970; the asymptotic confidence sequence of Waudby-Smith et al. 2021, eq. 15, with t * rho^2 = I / tau).
It holds for large samples, as every normal interval does. tau has to be fixed before the data are looked at: it says at which information
the interval is tightest.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import gammaln


def tightest(alpha: float) -> float:
    """The I / tau at which the boundary is lowest: the solution of r = log(1 + r) - 2 log(alpha)."""
    r = 8.0
    for _ in range(100):
        r = math.log1p(r) - 2 * math.log(alpha)
    return r


def boundary(ratio: Any, alpha: float) -> Any:
    """How many standard errors wide the interval is to each side.

    Args:
        ratio: I / tau, of any shape, above 0.

    Example:
        >>> round(boundary(tightest(0.05), 0.05), 3)  # at its best; an interval for one look has 1.96
        3.034
    """
    return np.sqrt((1 + 1 / ratio) * (np.log1p(ratio) - 2 * math.log(alpha)))


def always_valid_p(z: Any, ratio: Any) -> Any:
    """The alpha at which the interval just touches 0; its least value over all looks is a p-value that holds at every look.

    Args:
        z: the estimate over its standard error; ratio: I / tau, of the same shape.
    """
    return np.minimum(1.0, np.sqrt(1 + ratio) * np.exp(-np.square(z) * ratio / (2 * (1 + ratio))))


def at_looks(estimate_D: np.ndarray, variance_D: np.ndarray, tau: Any, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """Half the width of the interval at each look, and the p-value so far, [..., D].

    Args:
        tau: [...], fixed before the first look.
    """
    ratio_D = 1 / (variance_D * np.asarray(tau)[..., None])
    p_D = always_valid_p(estimate_D / np.sqrt(variance_D), ratio_D)
    return np.sqrt(variance_D) * boundary(ratio_D, alpha), np.minimum.accumulate(p_D, -1)


def ratio_mismatch_p(counts_DA: np.ndarray, shares_A: Sequence[float], strength: float = 1000.0) -> np.ndarray:
    """P-values of units' being in the arms by their shares, which hold at every look (Lindon and Malek 2022): 1 over the largest Bayes
    factor so far of a Dirichlet prior around the shares against the shares themselves. Exact, not asymptotic.

    Args:
        counts_DA: [looks, arms] units that have come up to each look.
        shares_A: of the arms, in any unit.
        strength: of the prior: the larger, the smaller a mismatch it is most sensitive to.

    Returns:
        [looks].
    """
    share_A = np.asarray(shares_A, float) / np.sum(shares_A)
    prior_A, n_DA = strength * share_A, np.asarray(counts_DA, float)
    log_factor_D = (gammaln(prior_A + n_DA) - gammaln(prior_A)).sum(-1) - gammaln(strength + n_DA.sum(-1)) + gammaln(strength)
    log_factor_D -= (n_DA * np.log(share_A)).sum(-1)
    return np.exp(-np.maximum(np.maximum.accumulate(log_factor_D), 0))
