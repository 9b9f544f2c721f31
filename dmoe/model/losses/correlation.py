"""A loss on the correlation between the experts over the global batch (docs/method.md).

Shapes: B rows of this rank, M experts, D dims of the tensor that is de-correlated, P = M * D.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from dmoe.distributed import all_gather_rows, global_scatter

DEAD_RELATIVE_VARIANCE = 1e-13
"""A column whose variance is below this share of its mean square is constant up to rounding."""
EPS = 1e-8
"""EPS times the mean variance is added to the variance of a column. With an absolute constant, a model that shrinks its outputs would
look de-correlated."""


class Correlation(NamedTuple):
    """loss: [] with gradient. mean_abs: [] mean |r| over pairs of experts. dead: [] number of columns without variance. rows: [] number of
    rows of all ranks."""

    loss: Tensor
    mean_abs: Tensor
    dead: Tensor
    rows: Tensor


class CorrelationLoss(nn.Module):
    """2 / (M (M - 1)) * sum_{p<q} mean_ab |R_pq[a, b]|, with R_pq the cross-correlation of experts p and q over the global batch.

    It works in any project with TorchRec or plain PyTorch. Without a process group, the batch is the rows of this process. Three rules:

    - Gradients must be averaged over ranks afterwards, as DistributedDataParallel does.
    - Every rank must call it with the same number of rows: pad, and mask the padding.
    - Under TorchRec's TrainPipelineSparseDist, keep it in a leaf module, since FX tracing fails on its collectives: call it in the module
      that holds your losses, not in `forward` of a module that holds tables.

    Args:
        estimator: `pearson`, or `covariance` for R_pq = (O_p - mean)^T (O_q - mean) (Crocodile; falls if outputs shrink, no 1 / B).
        norm: `l1` |r|; `l2` r^2; `l2_debiased` max(mean r^2 - 1 / (rows - 1), 0) for each pair: it is 0 at the value that independent
            experts have over so few rows.
        scope: `full` uses all [D, D] entries of a pair, `diagonal` those of equal dims.
        reduce: `moments`, or `gather`, the reference; both give the same value and gradient.

    Shape:
        - Input: outputs [B, M, D] of any float dtype, computed in float32 or float64; mask [B], 0 for padding; without a mask, all rows
          count; label [B], 0 or 1: if given, columns are centered within the rows of each label, which leaves the correlation that the
          label does not explain.
        - Output: Correlation. The loss is equal on all ranks. The mean of the gradients over ranks is the exact gradient.

    Examples:
        >>> outputs_BMD = torch.tensor([[[1.0], [2.0]], [[2.0], [4.0]], [[3.0], [6.5]]], requires_grad=True)
        >>> found = CorrelationLoss()(outputs_BMD)
        >>> (0.1 * found.loss).backward()
        >>> round(found.loss.item(), 4)
        0.9979
    """

    def __init__(self, estimator: str = "pearson", norm: str = "l1", scope: str = "full", reduce: str = "moments") -> None:
        super().__init__()
        self.estimator, self.norm, self.scope, self.reduce = estimator, norm, scope, reduce

    def forward(self, outputs_BMD: Tensor, mask_B: Tensor | None = None, label_B: Tensor | None = None) -> Correlation:
        mask_B = outputs_BMD.new_ones(len(outputs_BMD)) if mask_B is None else mask_B
        with torch.autocast(outputs_BMD.device.type, enabled=False):
            x_BP = outputs_BMD.flatten(1)
            x_BP = x_BP if x_BP.dtype == torch.float64 else x_BP.float()
            scatter = global_scatter if self.reduce == "moments" else _gathered_scatter
            mask_B = mask_B.to(x_BP.dtype)
            experts = outputs_BMD.shape[1]
            if label_B is None:
                return self._of_scatter(*scatter(x_BP, mask_B, experts), experts)
            (of_0, mean_0, rows_0), (of_1, mean_1, rows_1) = (scatter(x_BP, mask_B * (label_B == label), experts) for label in (0, 1))
            rows = rows_0 + rows_1
            mean_P = (mean_0 * rows_0 + mean_1 * rows_1).to(x_BP.dtype) / rows.clamp(min=1).to(x_BP.dtype)
            return self._of_scatter(of_0 + of_1, mean_P, rows, experts, classes=2)

    def _of_scatter(self, scatter_PP: Tensor, mean_P: Tensor, rows: Tensor, experts: int, classes: int = 1) -> Correlation:
        variance_P = scatter_PP.diagonal() / rows.clamp(min=1).to(scatter_PP.dtype)
        pearson_PP, alive_P = _pearson(scatter_PP, variance_P, mean_P)
        r_PP = pearson_PP if self.estimator == "pearson" else scatter_PP
        floor = 1 / (rows - classes).clamp(min=1).to(r_PP.dtype)
        pair_MM = self._block_means(r_PP.abs() if self.norm == "l1" else r_PP.square(), experts)
        if self.norm == "l2_debiased":
            pair_MM = (pair_MM - floor).relu()
        mean_abs = _over_pairs(_blocks(pearson_PP.detach().abs(), experts).mean((2, 3)))
        return Correlation(_over_pairs(pair_MM), mean_abs, (~alive_P).sum(), rows)

    def _block_means(self, x_PP: Tensor, experts: int) -> Tensor:
        blocks_MMDD = _blocks(x_PP, experts)
        if self.scope == "diagonal":
            return blocks_MMDD.diagonal(dim1=2, dim2=3).mean(2)
        return blocks_MMDD.mean((2, 3))


def _pearson(scatter_PP: Tensor, variance_P: Tensor, mean_P: Tensor) -> tuple[Tensor, Tensor]:
    alive_P = variance_P.detach() > DEAD_RELATIVE_VARIANCE * mean_P.square() + torch.finfo(variance_P.dtype).tiny
    sums_P = scatter_PP.diagonal()
    relative = EPS * (sums_P.detach() * alive_P).sum() / alive_P.sum().clamp(min=1)
    # Masked before the square root: its gradient at 0 is infinite, and 0 * inf would be NaN.
    inverse_P = torch.where(alive_P, sums_P + relative, torch.ones_like(sums_P)).rsqrt() * alive_P
    return scatter_PP * inverse_P[:, None] * inverse_P[None, :], alive_P


def _gathered_scatter(x_BP: Tensor, mask_B: Tensor, _groups: int) -> tuple[Tensor, Tensor, Tensor]:
    """The reference for `global_scatter`: gathers the rows of all ranks and computes all entries."""
    every_BP, every_mask_B = all_gather_rows(x_BP), all_gather_rows(mask_B)
    # A mask and not an index: the size of an index would need a synchronization with the device.
    counts_B1, rows = every_mask_B[:, None] > 0, every_mask_B.sum(dtype=torch.float64)
    mean_P = torch.where(counts_B1, every_BP, 0).sum(0) / rows.clamp(min=1).to(x_BP.dtype)
    centred_BP = torch.where(counts_B1, every_BP - mean_P, 0)
    return centred_BP.T @ centred_BP, mean_P.detach(), rows


def _blocks(x_PP: Tensor, experts: int) -> Tensor:
    return x_PP.unflatten(0, (experts, -1)).unflatten(2, (experts, -1)).transpose(1, 2)


def _over_pairs(pair_MM: Tensor) -> Tensor:
    experts = len(pair_MM)
    if experts < 2:
        return pair_MM.sum() * 0
    return pair_MM.triu(1).sum() * 2 / (experts * (experts - 1))
