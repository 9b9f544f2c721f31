"""Batch norm over the rows of all ranks, so that neither the plan nor the number of ranks changes the model.

Shapes: B rows of this rank, M experts, D width of the output of an expert, P = M * D columns.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

from dmoe.distributed import all_reduce_sum
from dmoe.model.experts.dense import ACTIVATIONS
from dmoe.model.experts.options import Activation

MOMENTUM, EPS = 0.1, 1e-5


class NormalizedExperts(nn.Module):
    """activation(batch norm(x)) for each column of the experts' outputs (HoME, Wang et al. 2024, with SiLU): no expert shrinks or dies.

    In training, each column is normalized by its exact mean and variance over the rows of the global batch, without padding. The moments
    are all-reduced in forward and backward. In evaluation, the running moments are used. They are in the state dict and equal on all ranks:
    the mean over the first ten batches, then an exponential moving average with momentum 0.1. The running variance is unbiased.

    Attributes:
        apart: normalize over the rows of this rank only, and do not update the running moments. For a pass that only measures, which a
            single rank may run.

    Shape:
        - Input: x [B, M, D]; mask [B], 0 for padding; without a mask, all rows count. B must be equal on all ranks.
        - Output: [B, M, D], float32 or float64.

    Example:
        >>> norm = NormalizedExperts(experts=2, dim=3, activation="silu")
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
                unit_BP, mean_P, var_P, rows = _Normalize.apply(x_BP, mask_B, self.apart)
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


class _Normalize(Function):
    """Returns (x - mean) / sqrt(variance + eps) over the rows of all ranks; mean [P], variance [P] and the number of rows [], float64 and
    without gradient."""

    @staticmethod
    def forward(ctx: Any, x_BP: Tensor, mask_B: Tensor, apart: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        kept_B1 = mask_B[:, None] > 0
        # `where` and not a product removes padding: 0 * inf would be NaN. Two passes, since E[x^2] - E[x]^2 loses digits.
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
        # Each rank has the gradient of its own share of the loss. A row influences the rows of all ranks, so the sums are all-reduced.
        sums = torch.cat([grad_BP.sum(0, dtype=torch.float64), (grad_BP * unit_BP).sum(0, dtype=torch.float64)])
        mean_P, along_P = (_over_ranks(sums, ctx.apart) / rows.clamp(min=1)).to(grad_BP.dtype).chunk(2)
        return ((grad_BP - mean_P - unit_BP * along_P) * inverse_P).where(kept_B1, 0), None, None


def _over_ranks(x: Tensor, apart: bool) -> Tensor:
    return x if apart else all_reduce_sum(x)
