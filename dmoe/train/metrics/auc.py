"""Area under the ROC curve over all ranks' rows: binned with its own error bound, or exact.

Shapes: B rows of a batch, N bins.
"""

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from dmoe.distributed import all_reduce_sum, world_size
from dmoe.train.metrics.grouped import weighted_aucs

LOGIT_RANGE = 20.0
"""Bins divide the logits from -20 to 20, where probabilities reach 2e-9; what is outside falls into the outermost bins."""


class BinnedAuc:
    """Counts of both labels in bins of the logit; merging is adding.

    Scores of a bin count as ties, so the AUC is off by at most half of the pairs that share a bin: `error_bound`, which is measured,
    not assumed.

    Args:
        bins: N.
        device: where the counts live.
    """

    def __init__(self, bins: int = 65536, device: torch.device | str = "cpu") -> None:
        self.bins = bins
        self.counts_2N = torch.zeros(2, bins, dtype=torch.float64, device=device)

    def update(self, logit_B: Tensor, label_B: Tensor, mask_B: Tensor) -> None:
        bin_B = ((logit_B.double() + LOGIT_RANGE) * (self.bins / (2 * LOGIT_RANGE))).clamp(0, self.bins - 1).long()
        index_B = bin_B + self.bins * (label_B > 0.5)
        self.counts_2N.view(-1).index_add_(0, index_B, mask_B.to(torch.float64))

    def compute(self) -> tuple[float, float]:
        """AUC and error bound over all ranks; NaN where one of the labels does not occur."""
        negatives_N, positives_N = all_reduce_sum(self.counts_2N.clone())
        pairs = negatives_N.sum() * positives_N.sum()
        below_N = negatives_N.cumsum(0) - negatives_N
        tied_N = negatives_N * positives_N
        ordered = (positives_N * below_N).sum() + tied_N.sum() / 2
        return float(ordered / pairs), float(tied_N.sum() / 2 / pairs)


class ExactAuc:
    """Keeps every score: 13 bytes a row on each rank, gathered on all ranks at the end."""

    def __init__(self) -> None:
        self.scores: list[np.ndarray] = []
        self.labels: list[np.ndarray] = []
        self.weights: list[np.ndarray] = []

    def update(self, logit_B: Tensor, label_B: Tensor, mask_B: Tensor) -> None:
        kept_B = mask_B > 0
        self.scores.append(logit_B[kept_B].float().cpu().numpy())
        self.labels.append((label_B[kept_B] > 0.5).cpu().numpy())
        self.weights.append(mask_B[kept_B].double().cpu().numpy())

    def compute(self) -> tuple[float, float]:
        """AUC, ties counted as a half, and 0 for the error bound."""
        columns = [
            np.concatenate([*batches, np.empty(0, kind)])
            for batches, kind in ((self.scores, np.float32), (self.labels, bool), (self.weights, np.float64))
        ]
        if world_size() > 1:
            parts: list[list[np.ndarray] | None] = [None] * world_size()
            dist.all_gather_object(parts, columns)
            columns = [np.concatenate(column) for column in zip(*(part for part in parts if part), strict=True)]
        scores, labels, weights = columns
        if len(weights) and (weights != weights[0]).any():
            return float(weighted_aucs(np.zeros(len(scores), np.int64), scores, labels, weights)[0][0]), 0.0
        return exact_auc(scores, labels), 0.0


def exact_auc(scores: np.ndarray, labels: np.ndarray) -> float:
    """The Mann-Whitney statistic over all pairs, ties counted as a half; NaN where one of the labels does not occur.

    Args:
        scores: [rows] of any float dtype.
        labels: [rows] of bool.
    """
    positives, negatives = int(labels.sum()), int((~labels).sum())
    if not positives or not negatives:
        return float("nan")
    _, group, size = np.unique(scores, return_inverse=True, return_counts=True)
    last = np.cumsum(size)
    middle_rank = last - (size - 1) / 2
    return float((middle_rank[group][labels].sum() - positives * (positives + 1) / 2) / (positives * negatives))
