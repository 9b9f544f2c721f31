"""GAUC: the AUC within each group, such as a user, averaged with the number of impressions as weight (Zhu et al. 2017, Zhou et al. 2018).

Shapes: B rows of a batch, N rows of all batches, G groups.
"""

from typing import Any, NamedTuple

import numpy as np
import torch.distributed as dist
from torch import Tensor
from torchmetrics import Metric

from dmoe.data.dataset.manifest import NO_GROUP
from dmoe.distributed import broadcast_object, rank, world_size


class Gauc(NamedTuple):
    """`value` is NaN if no group has both labels, or a score is NaN. `groups`: number of groups with both labels; `share`: their share
    of the rows."""

    value: float
    groups: int
    share: float


class GroupedAUC(Metric):
    """GAUC over all ranks. Keeps 21 bytes per row on each rank; rank 0 gathers all rows in `compute`.

    Shape:
        - Input of `update`: logit [B]; label [B] of 0 and 1; weight [B], 0 for padding; group [B] integers, 0 for rows without a group.
        - Output: Gauc.

    Examples:
        >>> import torch
        >>> metric = GroupedAUC()
        >>> metric.update(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.0, 1.0, 1.0]), torch.ones(3), torch.tensor([7, 7, 8]))
        >>> metric.compute()
        Gauc(value=1.0, groups=1, share=0.6666666666666666)
    """

    higher_is_better = True
    full_state_update = False
    names = ("group", "score", "label", "weight")

    def __init__(self, **settings: Any) -> None:
        # `compute` gathers the rows itself, on rank 0 only.
        super().__init__(**{"sync_on_compute": False, **settings})
        for name in self.names:
            self.add_state(name, [], dist_reduce_fx=None)

    def update(self, logit_B: Tensor, label_B: Tensor, weight_B: Tensor, group_B: Tensor) -> None:
        """Keeps the rows of a batch."""
        kept_B = weight_B > 0
        parts = (group_B[kept_B], logit_B[kept_B].float(), label_B[kept_B] > 0.5, weight_B[kept_B].double())
        for name, part in zip(self.names, parts, strict=True):
            getattr(self, name).append(part.cpu())

    def compute(self) -> Gauc:
        """GAUC over the rows of all ranks, returned on each rank. Must be called on all ranks."""
        empty = (np.empty(0, np.int64), np.empty(0, np.float32), np.empty(0, bool), np.empty(0))
        mine = tuple(
            np.concatenate([none, *(batch.numpy() for batch in getattr(self, name))]) for name, none in zip(self.names, empty, strict=True)
        )
        gathered: list[tuple[np.ndarray, ...] | None] = [mine]
        if world_size() > 1:
            gathered = [None] * world_size()
            dist.gather_object(mine, gathered if rank() == 0 else None)
        found = None
        if rank() == 0:
            columns = [np.concatenate(columns) for columns in zip(*(part for part in gathered if part is not None), strict=True)]
            found = grouped_auc(*columns)
        found = broadcast_object(found)
        assert found is not None
        return found


def grouped_auc(group_N: np.ndarray, score_N: np.ndarray, label_N: np.ndarray, weight_N: np.ndarray) -> Gauc:
    """Mean AUC of the groups with both labels, weighted by the total weight of each group; ties count as one half.

    Args:
        group_N: integers; rows with group 0 have no group and are ignored.
        label_N: bool.
        weight_N: above 0; all 1 for an impression-weighted GAUC. A pair within a group is weighted by the product of its two weights.
    """
    rows = len(group_N)
    kept_N = group_N != NO_GROUP
    auc_G, weight_G, rows_G = weighted_aucs(group_N[kept_N], score_N[kept_N], label_N[kept_N], weight_N[kept_N])
    both_G = ~np.isnan(auc_G)
    if not both_G.any():
        return Gauc(float("nan"), 0, 0.0)
    value = float("nan") if np.isnan(score_N[kept_N]).any() else float(np.average(auc_G[both_G], weights=weight_G[both_G]))
    return Gauc(value, int(both_G.sum()), float(rows_G[both_G].sum() / rows))


def weighted_aucs(
    group_N: np.ndarray, score_N: np.ndarray, label_N: np.ndarray, weight_N: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(AUC, weight, rows) of each group, each [G], sorted by group; the AUC is NaN if a label does not occur or a score is NaN."""
    if not len(group_N):
        return np.empty(0), np.empty(0), np.empty(0, np.int64)
    order = np.lexsort((score_N, group_N))
    group_N, score_N, label_N, weight_N = group_N[order], score_N[order], label_N[order], weight_N[order].astype(np.float64)
    new_group = np.append(True, group_N[1:] != group_N[:-1])
    # A tie: rows with the same group and score.
    tie_at = np.flatnonzero(new_group | np.append(True, score_N[1:] != score_N[:-1]))
    negative_T = np.add.reduceat(np.where(label_N, 0.0, weight_N), tie_at)
    positive_T = np.add.reduceat(np.where(label_N, weight_N, 0.0), tie_at)
    group_at = np.flatnonzero(new_group[tie_at])
    negative_G, positive_G = np.add.reduceat(negative_T, group_at), np.add.reduceat(positive_T, group_at)
    ties_G = np.diff(np.append(group_at, len(tie_at)))
    below_T = np.cumsum(negative_T) - negative_T
    below_T = below_T - np.repeat(below_T[group_at], ties_G)
    ordered_G = np.add.reduceat(positive_T * (below_T + negative_T / 2), group_at)
    pairs_G = negative_G * positive_G
    ordered_G[np.maximum.reduceat(np.isnan(score_N[tie_at]), group_at)] = np.nan
    auc_G = np.divide(ordered_G, pairs_G, out=np.full(len(pairs_G), np.nan), where=pairs_G > 0)
    return auc_G, negative_G + positive_G, np.diff(np.append(tie_at[group_at], len(group_N)))
