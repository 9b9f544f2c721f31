"""Gain in logloss from the diversity of the experts (docs/method.md): streaming, mergeable, in float64.

Shapes: B rows of a batch, M experts.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from dmoe.metrics.auc import all_reduced


@dataclass(frozen=True)
class AmbiguityReport:
    """Values in nats per row; `nan` if there were no rows.

    Attributes:
        value: mean over rows of sum_m g_m BCE(p_m, y) - BCE(p, y): the gain of the mixture over an expert sampled from the gate. Never
            negative if logits or probabilities are mixed (Jensen). It may be negative if hidden states are mixed before one tower:
            single experts are then better than the mixture.
        even: as `value`, with 1 / M for each g_m. It can be negative for any mixture whose gate is not uniform.
        expert_logloss: mean BCE(p_m, y) of each expert.
        responsibility: for each expert, the mean of g_m p_m(y) / sum_n g_n p_n(y): its posterior probability given the label.
    """

    value: float
    even: float
    expert_logloss: list[float]
    responsibility: list[float]


class Ambiguity(Metric):
    """Sums the logloss of the mixture, of each expert, and of the experts weighted by the gate.

    Args:
        experts: M.

    Shape:
        - Input of `update`: logit [B] of the mixture; expert_logit [B, M]; gate [B, M], which sums to 1 over M; label [B]; weight [B], 0
          for padding (default: 1 for all rows).
        - Output: AmbiguityReport.

    Examples:
        >>> metric = Ambiguity(experts=2)
        >>> metric.update(torch.tensor([1.0]), torch.tensor([[0.0, 2.0]]), torch.tensor([[0.5, 0.5]]), torch.tensor([1.0]))
        >>> round(metric.compute().value, 4)
        0.0968
    """

    higher_is_better = True
    full_state_update = False
    sums_L: Tensor

    def __init__(self, experts: int, **settings: Any) -> None:
        super().__init__(**{"dist_sync_fn": all_reduced, **settings})
        self.add_state("sums_L", torch.zeros(3 + 2 * experts, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, logit_B: Tensor, expert_logit_BM: Tensor, gate_BM: Tensor, label_B: Tensor, weight_B: Tensor | None = None) -> None:
        """Adds the rows of a batch."""
        weight_B1 = (torch.ones_like(label_B) if weight_B is None else weight_B).double()[:, None]
        logit_BN = torch.cat([logit_B[:, None], expert_logit_BM], 1).double()
        label_BN = label_B.double()[:, None].expand_as(logit_BN)
        loss_BN = torch.nn.functional.binary_cross_entropy_with_logits(logit_BN, label_BN, reduction="none")
        gated_B1 = (gate_BM.double() * loss_BN[:, 1:]).sum(1, keepdim=True)
        # p_m(y) = exp(-loss). In log space, a gate of 0 gets no credit, and a row with only confident wrong experts does not give 0 / 0.
        credit_BM = (gate_BM.double().log() - loss_BN[:, 1:]).softmax(1)
        self.sums_L += (torch.cat([torch.ones_like(gated_B1), gated_B1, loss_BN, credit_BM.nan_to_num(0.0)], 1) * weight_B1).sum(0)

    def compute(self) -> AmbiguityReport:
        """The report over all ranks; must be called on all ranks."""
        gated, mixture, *rest = (self.sums_L[1:] / self.sums_L[0]).tolist()
        experts, credit = rest[: len(rest) // 2], rest[len(rest) // 2 :]
        return AmbiguityReport(gated - mixture, sum(experts) / len(experts) - mixture, experts, credit)
