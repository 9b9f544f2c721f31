"""Ratio metrics of rows that come in clusters: a unit's rows are not independent, units are.

Shapes: U units of an arm.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from dmoe.report.statistics import placements


def ratio_of_sums(x_U: np.ndarray, n_U: np.ndarray) -> tuple[Any, Any]:
    """sum(x) / sum(n) and its variance over a new draw of units, by the delta method (Deng et al. 2018), over the last axis.

    Args:
        x_U: [..., U] sums of a unit's rows, such as its clicks; n_U: [..., U] its rows, or what the sum is over.

    Example:
        >>> mean, variance = ratio_of_sums(np.array([1.0, 0.0, 2.0]), np.array([2.0, 2.0, 2.0]))
        >>> round(mean, 4), round(variance, 4)
        (0.5, 0.0833)
    """
    units, total = x_U.shape[-1], n_U.sum(-1)
    mean = x_U.sum(-1) / total
    squares = np.square(x_U - mean[..., None] * n_U).sum(-1)
    return mean, squares * units / max(units - 1, 1) / np.square(total)


@dataclass(frozen=True)
class Effect:
    """A difference of a treatment from the control, [...] each: absolute, and relative to the control's mean."""

    absolute: Any
    variance: Any
    relative: Any
    relative_variance: Any


def effect(control: tuple[Any, Any], treatment: tuple[Any, Any]) -> Effect:
    """
    Args:
        control, treatment: (mean, variance) each, of independent units.
    """
    (a, var_a), (b, var_b) = control, treatment
    with np.errstate(divide="ignore", invalid="ignore"):
        return Effect(b - a, var_a + var_b, b / a - 1, var_b / np.square(a) + var_a * np.square(b) / np.power(a, 4))


def design_effect(variance: float, row_variance: float, n_U: np.ndarray) -> tuple[float, float]:
    """How many times larger a variance is than that of as many independent rows; and the intra-unit correlation that explains it.

    Args:
        variance: of the mean, by units; row_variance: of one row; n_U: [U] rows of each unit.
    """
    rows = float(n_U.sum())
    if not row_variance or not rows:
        return 1.0, 0.0
    factor, larger = variance * rows / row_variance, float(np.square(n_U).sum()) / rows - 1
    return factor, (factor - 1) / larger if larger > 0 else 0.0


def clustered_auc(score_N: np.ndarray, label_N: np.ndarray, unit_N: np.ndarray) -> tuple[float, float]:
    """The AUC and its standard error over a new draw of units (Obuchowski 1997); NaN where a label occurs less than twice.

    Args:
        unit_N: [N] the number of each row's unit.
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
