"""Area under the ROC curve over the rows of all ranks: binned with a measured error bound, or exact.

Shapes: B rows of a batch, N bins.
"""

import math
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from dmoe.distributed import all_reduce_sum
from dmoe.metrics.grouped import KeptRows, weighted_aucs

LOGIT_RANGE = 20.0
"""Bins cover logits from -20 to 20 (probabilities from 2e-9 to 1 - 2e-9); logits outside are in the first or the last bin."""


class BinnedAUC(Metric):
    """Area under the ROC curve from counts of both labels in bins of the logit, with an error bound.

    Scores in the same bin count as ties. The error of the AUC is therefore at most half of the share of pairs in the same bin:
    `error_bound`, computed from the counts. Ranks merge with one all-reduce of 16 bytes per bin.

    Args:
        bins: N.

    Attributes:
        error_bound: error bound of the last value that `compute` returned.

    Shape:
        - Input of `update`: logit [B] (not a probability), label [B] of 0 and 1, weight [B] (0 for padding; default 1).
        - Output: [] float64; NaN if one of the labels does not occur, or if a logit was NaN.

    Examples:
        >>> metric = BinnedAUC()
        >>> metric.update(torch.tensor([-2.0, -1.0, 0.5, 2.0]), torch.tensor([0.0, 1.0, 0.0, 1.0]))
        >>> metric.compute()
        tensor(0.7500, dtype=torch.float64)
    """

    higher_is_better = True
    full_state_update = False
    counts_2N: Tensor

    def __init__(self, bins: int = 65536, **settings: Any) -> None:
        super().__init__(**{"dist_sync_fn": all_reduced, **settings})
        self.bins = bins
        self.error_bound = math.nan
        self.add_state("counts_2N", torch.zeros(2, bins, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, logit_B: Tensor, label_B: Tensor, weight_B: Tensor | None = None) -> None:
        """Counts the rows of a batch."""
        weight_B = torch.ones_like(label_B) if weight_B is None else weight_B
        bin_B = ((logit_B.double() + LOGIT_RANGE) * (self.bins / (2 * LOGIT_RANGE))).clamp(0, self.bins - 1)
        index_B = bin_B.nan_to_num().long() + self.bins * (label_B > 0.5)
        # A NaN logit belongs to no bin: its count is NaN, so the AUC is NaN too.
        count_B = weight_B.to(torch.float64).masked_fill(logit_B.isnan() & (weight_B > 0), math.nan)
        self.counts_2N.view(-1).index_add_(0, index_B, count_B)

    def compute(self) -> Tensor:
        """The AUC over all ranks; sets `error_bound`. Must be called on all ranks."""
        # On the CPU, because cumulative sums of floats on GPUs are not deterministic.
        negatives_N, positives_N = self.counts_2N.cpu()
        pairs = negatives_N.sum() * positives_N.sum()
        below_N = negatives_N.cumsum(0) - negatives_N
        tied_N = negatives_N * positives_N
        self.error_bound = float(tied_N.sum() / 2 / pairs)
        return (((positives_N * below_N).sum() + tied_N.sum() / 2) / pairs).to(self.counts_2N.device)


class ExactAUC(KeptRows):
    """Exact area under the ROC curve; ties count as one half. Keeps 13 bytes per row on each rank; rank 0 gathers all rows.

    Shape: as in `BinnedAUC`.
    """

    error_bound = 0.0
    kinds: ClassVar = {"scores": np.float32, "labels": bool, "weights": np.float64}

    def update(self, logit_B: Tensor, label_B: Tensor, weight_B: Tensor | None = None) -> None:
        """Keeps the rows of a batch."""
        weight_B = torch.ones_like(label_B) if weight_B is None else weight_B
        kept_B = weight_B > 0
        self.keep(logit_B[kept_B].float(), label_B[kept_B] > 0.5, weight_B[kept_B].double())

    def compute(self) -> Tensor:
        """The AUC over the rows of all ranks. Must be called on all ranks."""
        return torch.tensor(self.of_all(_exact), dtype=torch.float64)


def _exact(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> float:
    if len(weights) and (weights != weights[0]).any():
        return float(weighted_aucs(np.zeros(len(scores), np.int64), scores, labels, weights)[0][0])
    return exact_auc(scores, labels)


def all_reduced(state: Tensor, group: Any = None) -> list[Tensor]:
    """`dist_sync_fn` of a metric whose states are sums: one all-reduce instead of an all-gather."""
    return [all_reduce_sum(state.clone())]


def exact_auc(scores: np.ndarray, labels: np.ndarray) -> float:
    """The Mann-Whitney statistic over all pairs; ties count as one half. NaN if a label does not occur or a score is NaN.

    Args:
        scores: [rows] of any float dtype.
        labels: [rows] of bool.
    """
    positives, negatives = int(labels.sum()), int((~labels).sum())
    if not positives or not negatives or np.isnan(scores).any():
        return float("nan")
    _, group, size = np.unique(scores, return_inverse=True, return_counts=True)
    last = np.cumsum(size)
    middle_rank = last - (size - 1) / 2
    return float((middle_rank[group][labels].sum() - positives * (positives + 1) / 2) / (positives * negatives))
