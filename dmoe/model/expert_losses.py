"""Losses beside the mixture's cross-entropy and the correlation: of each expert's own logit (ALGORITHM: section 5).

Every term is a mean over the rows of all ranks. A term is called with this rank's rows and gives this rank's share of it times the world
size, so that its mean over ranks, and the mean of its gradients, are the global ones.

Shapes: B rows of this rank, M experts.
"""

import torch
from torch import Tensor, nn

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


def cross_entropy(logit_BM: Tensor, label_B: Tensor) -> Tensor:
    """[B, M], of each logit."""
    return nn.functional.binary_cross_entropy_with_logits(logit_BM, label_B[:, None].expand_as(logit_BM), reduction="none")


def total(terms: nn.ModuleList, outputs: Outputs, label_B: Tensor, mean: RowMean) -> Tensor:
    """The sum of all terms, []."""
    return torch.stack([term(outputs, label_B, mean) for term in terms]).sum()
