"""Ratio metrics of clustered rows: units are independent, but the rows of a unit are not.

Shapes: U units of an arm.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from dmoe.report.statistics import placements


def ratio_of_sums(x_U: np.ndarray, n_U: np.ndarray) -> tuple[Any, Any]:
    """sum(x) / sum(n) over the last axis, and its variance for a new sample of units, by the delta method (Deng et al. 2018).

    Args:
        x_U: [..., U] numerator of each unit, such as its clicks.
        n_U: [..., U] denominator of each unit, such as its number of rows.

    Example:
        >>> mean, variance = ratio_of_sums(np.array([1.0, 0.0, 2.0]), np.array([2.0, 2.0, 2.0]))
        >>> round(float(mean), 4), round(float(variance), 4)
        (0.5, 0.0833)
    """
    units, total = x_U.shape[-1], n_U.sum(-1)
    mean = x_U.sum(-1) / total
    squares = np.square(x_U - mean[..., None] * n_U).sum(-1)
    return mean, squares * units / max(units - 1, 1) / np.square(total)


@dataclass(frozen=True)
class Effect:
    """Treatment minus control: the absolute difference and the difference relative to the mean of the control. All fields are [...]."""

    absolute: Any
    variance: Any
    relative: Any
    relative_variance: Any


def effect(control: tuple[Any, Any], treatment: tuple[Any, Any]) -> Effect:
    """The effect of a treatment.

    Args:
        control, treatment: (mean, variance of the mean) of each arm. The arms have no units in common.
    """
    (a, var_a), (b, var_b) = control, treatment
    with np.errstate(divide="ignore", invalid="ignore"):
        return Effect(b - a, var_a + var_b, b / a - 1, var_b / np.square(a) + var_a * np.square(b) / np.power(a, 4))


def design_effect(variance: float, row_variance: float, n_U: np.ndarray) -> tuple[float, float]:
    """The ratio of a variance to that of as many independent rows, and the intra-unit correlation that explains the ratio.

    Args:
        variance: variance of the mean, computed by units.
        row_variance: variance of one row.
        n_U: [U] number of rows of each unit.
    """
    rows = float(n_U.sum())
    if not row_variance or not rows:
        return 1.0, 0.0
    factor, larger = variance * rows / row_variance, float(np.square(n_U).sum()) / rows - 1
    return factor, (factor - 1) / larger if larger > 0 else 0.0


def clustered_auc(score_N: np.ndarray, label_N: np.ndarray, unit_N: np.ndarray) -> tuple[float, float]:
    """The AUC and its standard error for a new sample of units (Obuchowski 1997). NaN if a label occurs less than twice.

    Args:
        unit_N: [N] index of the unit of each row.
    """
    positives = int(label_N.sum())
    if min(positives, len(label_N) - positives) < 2:
        return float("nan"), float("nan")
    found = placements(score_N, label_N)
    influence_N = np.empty(len(label_N))
    influence_N[label_N] = (found.of_positives_P - found.mean) / positives
    influence_N[~label_N] = (found.of_negatives_Q - found.mean) / (len(label_N) - positives)
    influence_U = np.bincount(unit_N, influence_N)
    units = int((np.bincount(unit_N) > 0).sum())
    return found.mean, float(np.sqrt(np.square(influence_U).sum() * units / max(units - 1, 1)))
