"""GAUC: the AUC within each group, such as a user, averaged with the number of impressions as weight (Zhu et al. 2017, Zhou et al. 2018).

Shapes: B rows of a batch, N rows of all batches, G groups.
"""

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, TypeVar

import numpy as np
import torch.distributed as dist
from torch import Tensor
from torchmetrics import Metric

from dmoe.data.dataset.manifest import NO_GROUP
from dmoe.distributed import on_rank_0, rank, world_size

_T = TypeVar("_T")


class KeptRows(Metric):
    """Base of the metrics that need all rows at once. Each rank keeps its rows in its memory; rank 0 gathers them.

    Attributes:
        kinds: name of each column -> its numpy dtype.
    """

    higher_is_better = True
    full_state_update = False
    kinds: ClassVar[dict[str, type]]

    def __init__(self, **settings: Any) -> None:
        # `of_all` gathers the rows itself, because ranks have different numbers of rows.
        super().__init__(**{"sync_on_compute": False, **settings})
        for name in self.kinds:
            self.add_state(name, [], dist_reduce_fx=None)

    def keep(self, *columns: Tensor) -> None:
        """Keeps the rows of a batch, [B] for each of `kinds`."""
        for name, column_B in zip(self.kinds, columns, strict=True):
            getattr(self, name).append(column_B.cpu())

    def of_all(self, function: Callable[..., _T]) -> _T:
        """What a function makes of the columns of all ranks; called on rank 0, returned on each. Must be called on all ranks."""
        mine = [np.concatenate([np.empty(0, kind), *(one.numpy() for one in getattr(self, name))]) for name, kind in self.kinds.items()]
        gathered: list[Any] = [mine]
        if world_size() > 1:
            gathered = [None] * world_size()
            dist.gather_object(mine, gathered if rank() == 0 else None)
        return on_rank_0(lambda: function(*(np.concatenate(parts) for parts in zip(*gathered, strict=True))))


class Gauc(NamedTuple):
    """`value` is NaN if no group has both labels, or a score is NaN. `groups`: number of groups with both labels; `share`: their share
    of the rows."""

    value: float
    groups: int
    share: float


class GroupedAUC(KeptRows):
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

    kinds: ClassVar = {"group": np.int64, "score": np.float32, "label": bool, "weight": np.float64}

    def update(self, logit_B: Tensor, label_B: Tensor, weight_B: Tensor, group_B: Tensor) -> None:
        """Keeps the rows of a batch."""
        kept_B = weight_B > 0
        self.keep(group_B[kept_B], logit_B[kept_B].float(), label_B[kept_B] > 0.5, weight_B[kept_B].double())

    def compute(self) -> Gauc:
        """GAUC over the rows of all ranks, returned on each rank. Must be called on all ranks."""
        return self.of_all(grouped_auc)


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
