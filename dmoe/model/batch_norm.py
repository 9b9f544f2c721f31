"""Batch norm over the rows of all ranks, so that neither the plan nor the number of ranks changes what a model is.

Shapes: B rows of this rank, M experts, D width of an expert's output, P = M * D columns.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

from dmoe.distributed import all_reduce_sum
from dmoe.model.experts.dense import ACTIVATIONS
from dmoe.model.experts.options import Activation

MOMENTUM, EPS = 0.1, 1e-5


class NormalisedExperts(nn.Module):
    """activation(batch norm(x)) of every expert's output, column by column (HoME, Wang et al. 2024, with SiLU): no expert shrinks or dies.

    In training, columns are normalised by their mean and variance over the rows of the global batch, exactly: moments are all-reduced in
    forward and backward, and padding takes no part. In evaluation, by running moments, which are in the state dict and equal on all ranks:
    the mean of the first ten batches, then an exponential mean with a share of 0.1 of the newest. The variance is the unbiased one.

    Attributes:
        apart: normalise the rows at hand alone and keep no moments: for a pass that measures, and that one rank may make alone.

    Shape:
        - Input: x [B, M, D]; mask [B], 0 for padding, all rows where absent. B is equal on all ranks, as in all of a model.
        - Output: [B, M, D], float32 at least.

    Example:
        >>> norm = NormalisedExperts(experts=2, dim=3, activation="silu")
        >>> norm(torch.randn(4, 2, 3)).shape
        torch.Size([4, 2, 3])
    """

    running_mean: Tensor
    running_var: Tensor
    batches: Tensor

    def __init__(self, experts: int, dim: int, activation: Activation) -> None:
        super().__init__()
        columns = experts * dim
        self.weight, self.bias = nn.Parameter(torch.ones(columns)), nn.Parameter(torch.zeros(columns))
        self.register_buffer("running_mean", torch.zeros(columns))
        self.register_buffer("running_var", torch.ones(columns))
        self.register_buffer("batches", torch.zeros(()))
        self.activation = ACTIVATIONS[activation]()
        self.apart = False

    def forward(self, x_BMD: Tensor, mask_B: Tensor | None = None) -> Tensor:
        with torch.autocast(x_BMD.device.type, enabled=False):
            x_BP = x_BMD.flatten(1)
            x_BP = x_BP if x_BP.dtype == torch.float64 else x_BP.float()
            if self.training:
                mask_B = x_BP.new_ones(len(x_BP)) if mask_B is None else (mask_B > 0).to(x_BP.dtype)
                unit_BP, mean_P, var_P, rows = _Normalise.apply(x_BP, mask_B, self.apart)
                if not self.apart:
                    self._keep(mean_P, var_P, rows)
            else:
                unit_BP = (x_BP - self.running_mean) * (self.running_var + EPS).rsqrt()
            return self.activation(unit_BP * self.weight + self.bias).view_as(x_BMD)

    @torch.no_grad()
    def _keep(self, mean_P: Tensor, var_P: Tensor, rows: Tensor) -> None:
        self.batches += 1
        share = (1 / self.batches).clamp(min=MOMENTUM)
        self.running_mean.lerp_(mean_P.to(self.running_mean), share)
        self.running_var.lerp_((var_P * rows / (rows - 1).clamp(min=1)).to(self.running_var), share)


class _Normalise(Function):
    """(x - mean) / sqrt(variance + eps) over all ranks' rows; mean and variance [P] and rows [], float64, without gradient."""

    @staticmethod
    def forward(ctx: Any, x_BP: Tensor, mask_B: Tensor, apart: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        kept_B1 = mask_B[:, None] > 0
        # Padding is cut out, and not weighed with 0: 0 * inf would be NaN. Two passes, since E[x^2] - E[x]^2 cancels.
        sums = _over_ranks(torch.cat([x_BP.where(kept_B1, 0).sum(0, dtype=torch.float64), mask_B.sum(dtype=torch.float64)[None]]), apart)
        rows = sums[-1]
        mean_P = sums[:-1] / rows.clamp(min=1)
        centred_BP = (x_BP - mean_P.to(x_BP.dtype)).where(kept_B1, 0)
        var_P = _over_ranks(centred_BP.square().sum(0, dtype=torch.float64), apart) / rows.clamp(min=1)
        inverse_P = (var_P + EPS).rsqrt().to(x_BP.dtype)
        unit_BP = centred_BP * inverse_P
        ctx.apart = apart
        ctx.save_for_backward(unit_BP, inverse_P, kept_B1, rows)
        ctx.mark_non_differentiable(mean_P, var_P, rows)
        return unit_BP, mean_P, var_P, rows

    @staticmethod
    def backward(ctx: Any, grad_BP: Tensor, *_: Tensor) -> tuple[Tensor, None, None]:
        unit_BP, inverse_P, kept_B1, rows = ctx.saved_tensors
        # Every rank's gradient is that of its own share of the loss, so what a row does to the others' rows is the sum over ranks.
        sums = torch.cat([grad_BP.sum(0, dtype=torch.float64), (grad_BP * unit_BP).sum(0, dtype=torch.float64)])
        mean_P, along_P = (_over_ranks(sums, ctx.apart) / rows.clamp(min=1)).to(grad_BP.dtype).chunk(2)
        return ((grad_BP - mean_P - unit_BP * along_P) * inverse_P).where(kept_B1, 0), None, None


def _over_ranks(x: Tensor, apart: bool) -> Tensor:
    return x if apart else all_reduce_sum(x)
