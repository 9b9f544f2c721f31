"""GAUC: the AUC within each group, such as a user, averaged by the groups' impressions (Zhu et al. 2017, Zhou et al. 2018).

Shapes: B rows of a batch, N rows of all batches, G groups.
"""

from typing import NamedTuple

import numpy as np
import torch.distributed as dist
from torch import Tensor

from dmoe.data.dataset.manifest import NO_GROUP
from dmoe.distributed import broadcast_object, rank, world_size


class Gauc(NamedTuple):
    """`value` is NaN where no group has both labels. `groups` have both; `share` is their part of the rows."""

    value: float
    groups: int
    share: float


class GroupedAuc:
    """Keeps every row's group, score, label and weight: 21 bytes a row on its rank; rank 0 gathers all at the end."""

    def __init__(self) -> None:
        self.batches: list[tuple[np.ndarray, ...]] = []

    def update(self, logit_B: Tensor, label_B: Tensor, weight_B: Tensor, group_B: Tensor) -> None:
        kept_B = weight_B > 0
        parts = (group_B[kept_B], logit_B[kept_B].float(), label_B[kept_B] > 0.5, weight_B[kept_B].double())
        self.batches.append(tuple(part.cpu().numpy() for part in parts))

    def compute(self) -> Gauc:
        """Over all ranks' rows, on every rank; every rank has to call it."""
        empty = (np.empty(0, np.int64), np.empty(0, np.float32), np.empty(0, bool), np.empty(0))
        mine = tuple(np.concatenate(columns) for columns in zip(empty, *self.batches, strict=True))
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
    """The mean of the groups' AUCs over groups with both labels, weighted by the groups' weights; ties count as a half.

    Args:
        group_N: integers; rows of group 0 belong to none, and are left out.
        label_N: bool.
        weight_N: above 0; 1 for an impression-weighted GAUC. A pair within a group counts the product of its rows' weights.
    """
    rows = len(group_N)
    kept_N = group_N != NO_GROUP
    auc_G, weight_G, rows_G = weighted_aucs(group_N[kept_N], score_N[kept_N], label_N[kept_N], weight_N[kept_N])
    both_G = ~np.isnan(auc_G)
    if not both_G.any():
        return Gauc(float("nan"), 0, 0.0)
    value = float(np.average(auc_G[both_G], weights=weight_G[both_G]))
    return Gauc(value, int(both_G.sum()), float(rows_G[both_G].sum() / rows))


def weighted_aucs(
    group_N: np.ndarray, score_N: np.ndarray, label_N: np.ndarray, weight_N: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(AUC, NaN where a label does not occur; weight; rows), each [G], of every group in the order of its number."""
    if not len(group_N):
        return np.empty(0), np.empty(0), np.empty(0, np.int64)
    order = np.lexsort((score_N, group_N))
    group_N, score_N, label_N, weight_N = group_N[order], score_N[order], label_N[order], weight_N[order].astype(np.float64)
    new_group = np.append(True, group_N[1:] != group_N[:-1])
    # A tie: rows of one group and one score.
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
    auc_G = np.divide(ordered_G, pairs_G, out=np.full(len(pairs_G), np.nan), where=pairs_G > 0)
    return auc_G, negative_G + positive_G, np.diff(np.append(tie_at[group_at], len(group_N)))
