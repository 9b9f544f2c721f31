"""Losses in addition to the cross-entropy of the mixture and the correlation loss (docs/method.md).

Every term is a mean over the rows of all ranks. A term is called with the rows of this rank and returns the share of this rank times the
world size. The means over ranks of the value and of the gradients are then the global ones.

Shapes: B rows of this rank, M experts.
"""

import torch
from torch import Tensor, nn

from dmoe.distributed import all_reduce_sum, world_size
from dmoe.model.mixture import Outputs

ENTROPY_EPS, LEAST_REACH = 1e-6, 1e-3


class RowMean:
    """Means over the weighted rows of all ranks. A call returns the share of this rank times the world size.

    Args:
        weight_B: weight of each row, 0 for padding.
        scale: world size / sum of the weights on all ranks, [].
    """

    def __init__(self, weight_B: Tensor, scale: Tensor) -> None:
        self.weight_B, self.scale = weight_B, scale

    def __call__(self, x_BN: Tensor) -> Tensor:
        """[B, N] -> [N]."""
        # `where` and not a product removes padding: 0 * inf would be NaN.
        return (x_BN.where(self.weight_B[:, None] > 0, 0) * self.weight_B[:, None]).sum(0) * self.scale.to(x_BN.dtype)

    def over_ranks(self, x_BN: Tensor) -> Tensor:
        """[B, N] -> [N]: the mean itself, equal on all ranks and without gradient. Every rank must call it."""
        return all_reduce_sum(self(x_BN.detach())) / world_size()


class Supervision(nn.Module):
    """weight * mean_m BCE(p_m, y): each expert must predict well alone, which a de-correlated mixture does not otherwise require.

    Shape:
        - Input: Outputs with `expert_logit_BM`; label [B].
        - Output: [], the share of this rank.
    """

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, outputs: Outputs, label_B: Tensor, mean: RowMean) -> Tensor:
        return self.weight * mean(cross_entropy(outputs.expert_logit_BM, label_B)).mean()


class Agreement(nn.Module):
    """Experts learn from each other's probabilities (the distillation of KDEF; no weight to tune).

    s_m, the mean of 1 - |y - p_m| over the rows of all ranks, is the confidence of expert m. Experts of low confidence learn more, and more
    from experts of high confidence. S is a softmax, p the probability of the mixture. Only the learner gets gradients:

        ensemble: sum_m S_m(-s) MSE(p_m, p)
        mutual:   mean_m sum_{n != m} S_n(s_n - s_m) MSE(p_m, p_n), S over the teachers n != m

    Args:
        ensemble: experts learn from the mixture.
        mutual: experts learn from the other experts. With a single expert, this part is 0.

    Shape:
        - Input: Outputs with `expert_logit_BM`; label [B].
        - Output: [], the share of this rank.
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
            # [learner, teacher]. The s_m in S_n(s_n - s_m) is the same for all teachers of a learner, so the softmax does not depend on it.
            weight_MM = (
                sure_M.expand(len(sure_M), -1).masked_fill(torch.eye(len(sure_M), device=sure_M.device).bool(), -torch.inf).softmax(1)
            )
            apart_BMM = (p_BM[:, :, None] - taught_BM[:, None, :]).square()
            loss = loss + (weight_MM * mean(apart_BMM.flatten(1)).view_as(weight_MM)).sum() / len(sure_M)
        return loss


class Balance(nn.Module):
    """Penalizes a gate that uses the experts unevenly. G_m is the mean gate of expert m over the rows of all ranks.

    `load`: M sum_m f_m G_m. f_m is the share of rows whose largest gate is m, without gradient. 1 if f and G are uniform.
    `cv2`: M sum_m (G_m - 1 / M)^2, the squared coefficient of variation of G. 0 if G is uniform, M - 1 if one expert has all of it.

    Shape:
        - Input: Outputs. The gate [B, M, G] is averaged over G.
        - Output: [], the share of this rank.
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
        # The value is M sum (G - 1 / M)^2 at the global G. The gradient is that with respect to the share of this rank in G.
        slope_M = 2 * experts * (mass_M - 1 / experts)
        return self.weight * (experts * (mass_M - 1 / experts).square().sum() + (slope_M * (share_M - share_M.detach())).sum())


class Orthogonality(nn.Module):
    """weight * mean over rows and pairs of experts of cos^2(h_j, h_k), the squared cosine of two experts' outputs for one row.

    It follows the projection loss of arXiv 2505.22323, but is scale-free: smaller outputs do not lower it. Unlike the correlation, it is
    computed within each row, without subtracting the mean over the batch.

    Shape:
        - Input: Outputs with hidden [B, M, D].
        - Output: [], the share of this rank; 0 for one expert.
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


class SelectorPenalty(nn.Module):
    """Penalties that make a DSelect-k gate sparse: the mean over rows of the sum of two terms over the selectors l.

    entropy_weight * H(r_l), H(r) = -sum_m r_m log(r_m + 1e-6): low if a selector chooses a single expert.
    reach_weight * (1 / sum_m r_lm - 1): drives a selector away from codes without an expert, which exist if the number of experts is not
    a power of 2. This term has no gradient if a selector gives less than 0.001 to the experts together.

    Shape:
        - Input: Outputs with `selector_BLM`.
        - Output: [], the share of this rank.
    """

    def __init__(self, entropy_weight: float, reach_weight: float) -> None:
        super().__init__()
        self.entropy_weight, self.reach_weight = entropy_weight, reach_weight

    def forward(self, outputs: Outputs, label_B: Tensor, mean: RowMean) -> Tensor:
        r_BLM = outputs.selector_BLM
        assert r_BLM is not None
        entropy_BL = -(r_BLM * (r_BLM + ENTROPY_EPS).log()).sum(2)
        reach_BL = 1 / r_BLM.sum(2).clamp(min=LEAST_REACH) - 1
        return (self.entropy_weight * mean(entropy_BL) + self.reach_weight * mean(reach_BL)).sum()


def cross_entropy(logit_BM: Tensor, label_B: Tensor) -> Tensor:
    """Cross-entropy of each logit, [B, M]."""
    return nn.functional.binary_cross_entropy_with_logits(logit_BM, label_B[:, None].expand_as(logit_BM), reduction="none")


def total(terms: nn.ModuleList, outputs: Outputs, label_B: Tensor, mean: RowMean) -> Tensor:
    """The sum of all terms, []."""
    return torch.stack([term(outputs, label_B, mean) for term in terms]).sum()
