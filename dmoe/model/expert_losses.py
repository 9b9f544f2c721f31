"""Losses beside the mixture's cross-entropy and the correlation: of each expert's own logit (docs/method.md).

Every term is a mean over the rows of all ranks. A term is called with this rank's rows and gives this rank's share of it times the world
size, so that its mean over ranks, and the mean of its gradients, are the global ones.

Shapes: B rows of this rank, M experts.
"""

import torch
from torch import Tensor, nn

from dmoe.distributed import all_reduce_sum, world_size
from dmoe.model.mixture import Outputs


class RowMean:
    """Means over the weighted rows of all ranks, as this rank's share times the world size.

    Args:
        weight_B: 0 for padding.
        scale: world size / sum of all ranks' weights, [].
    """

    def __init__(self, weight_B: Tensor, scale: Tensor) -> None:
        self.weight_B, self.scale = weight_B, scale

    def __call__(self, x_BN: Tensor) -> Tensor:
        """[N] of [B, N]."""
        # Padding is cut out, and not weighed with 0: 0 * inf would be NaN.
        return (x_BN.where(self.weight_B[:, None] > 0, 0) * self.weight_B[:, None]).sum(0) * self.scale.to(x_BN.dtype)

    def over_ranks(self, x_BN: Tensor) -> Tensor:
        """[N] of [B, N], the mean itself, equal on all ranks; without gradient. Every rank has to call it."""
        return all_reduce_sum(self(x_BN.detach())) / world_size()


class Supervision(nn.Module):
    """weight * mean_m BCE(p_m, y): every expert has to rank alone, which an expert of a de-correlated mixture otherwise need not.

    Shape:
        - Input: Outputs with its `expert_logit_BM`; label [B].
        - Output: [], a rank's share.
    """

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, outputs: Outputs, label_B: Tensor, mean: RowMean) -> Tensor:
        return self.weight * mean(cross_entropy(outputs.expert_logit_BM, label_B)).mean()


class Agreement(nn.Module):
    """Experts learn each other's probabilities, the less sure ones more, from the surer ones more (KDEF's distillation; no weight to tune).

    With s_m the mean of 1 - |y - p_m| over the rows of all ranks, S a softmax, p the mixture's probability, and gradients through the
    learner alone, never through the teacher or s:

        ensemble: sum_m S_m(-s) MSE(p_m, p)
        mutual:   mean_m sum_{n != m} S_n(s_n - s_m) MSE(p_m, p_n), S over the teachers n != m

    Args:
        ensemble: learn from the mixture.
        mutual: learn from the other experts; of one expert there is none, and the term is 0.

    Shape:
        - Input: Outputs with its `expert_logit_BM`; label [B].
        - Output: [], a rank's share.
    """

    def __init__(self, ensemble: bool = True, mutual: bool = True) -> None:
        super().__init__()
        self.ensemble, self.mutual = ensemble, mutual

    def forward(self, outputs: Outputs, label_B: Tensor, mean: RowMean) -> Tensor:
        p_BM = outputs.expert_logit_BM.sigmoid()
        taught_BM = p_BM.detach()
        sure_M = mean.over_ranks(1 - (label_B[:, None] - taught_BM).abs())
        loss = p_BM.new_zeros(())
        if self.ensemble:
            mixed_B1 = outputs.logit_B.detach().sigmoid()[:, None]
            loss = loss + ((-sure_M).softmax(0) * mean((p_BM - mixed_B1).square())).sum()
        if self.mutual and len(sure_M) > 1:
            # [learner, teacher]: subtracting the learner's own confidence changes no softmax over its teachers.
            weight_MM = (
                sure_M.expand(len(sure_M), -1).masked_fill(torch.eye(len(sure_M), device=sure_M.device).bool(), -torch.inf).softmax(1)
            )
            apart_BMM = (p_BM[:, :, None] - taught_BM[:, None, :]).square()
            loss = loss + (weight_MM * mean(apart_BMM.flatten(1)).view_as(weight_MM)).sum() / len(sure_M)
        return loss


class Balance(nn.Module):
    """How unevenly the gate uses the experts, with G_m the mean gate over the rows of all ranks.

    `load`: M sum_m f_m G_m, f_m the share of rows whose largest gate is m, without gradient; 1 where both are even. `cv2`: the squared
    coefficient of variation of G, M sum_m (G_m - 1 / M)^2; 0 where it is even, M - 1 where one expert has all.

    Shape:
        - Input: Outputs, whose gate is [B, M, G] and is averaged over G.
        - Output: [], a rank's share.
    """

    def __init__(self, weight: float, kind: str) -> None:
        super().__init__()
        self.weight, self.kind = weight, kind

    def forward(self, outputs: Outputs, label_B: Tensor, mean: RowMean) -> Tensor:
        gate_BM = outputs.gate_BMG.mean(2)
        experts = gate_BM.shape[1]
        if self.kind == "load":
            largest_BM = nn.functional.one_hot(gate_BM.argmax(1), experts).to(gate_BM.dtype)
            return self.weight * experts * (mean.over_ranks(largest_BM) * mean(gate_BM)).sum()
        mass_M, share_M = mean.over_ranks(gate_BM), mean(gate_BM)
        # M sum (G - 1 / M)^2 at the global G, with the gradient that each rank's share of G has in it.
        slope_M = 2 * experts * (mass_M - 1 / experts)
        return self.weight * (experts * (mass_M - 1 / experts).square().sum() + (slope_M * (share_M - share_M.detach())).sum())


class Orthogonality(nn.Module):
    """weight * mean over rows and pairs of experts of cos^2(h_j, h_k): the share of h_j that lies along h_k, row by row.

    After the projections' loss of arXiv 2505.22323, without units, so that smaller outputs do not lower it. Unlike the correlation, it is
    of one row's outputs as they are, not of the batch's around their mean.

    Shape:
        - Input: Outputs with hidden [B, M, D].
        - Output: [], a rank's share; 0 for one expert.
    """

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, outputs: Outputs, label_B: Tensor, mean: RowMean) -> Tensor:
        unit_BMD = nn.functional.normalize(outputs.hidden_BMD, dim=2)
        experts = unit_BMD.shape[1]
        cosine_BMM = unit_BMD @ unit_BMD.transpose(1, 2)
        pairs_B1 = cosine_BMM.square().triu(1).sum((1, 2))[:, None]
        return self.weight * mean(pairs_B1).sum() * 2 / max(experts * (experts - 1), 1)


def cross_entropy(logit_BM: Tensor, label_B: Tensor) -> Tensor:
    """[B, M], of each logit."""
    return nn.functional.binary_cross_entropy_with_logits(logit_BM, label_B[:, None].expand_as(logit_BM), reduction="none")


def total(terms: nn.ModuleList, outputs: Outputs, label_B: Tensor, mean: RowMean) -> Tensor:
    """The sum of all terms, []."""
    return torch.stack([term(outputs, label_B, mean) for term in terms]).sum()
