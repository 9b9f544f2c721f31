"""The objective of training: row-weighted cross-entropy of the global batch, de-correlation loss, L2 on looked-up embeddings.

Shapes: B rows of this rank, F fields, K dims of an embedding, M experts, D width of the output of an expert.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dmoe.distributed import all_reduce_sum, world_size
from dmoe.model.controls import StepControls
from dmoe.model.losses.correlation import CorrelationLoss
from dmoe.model.losses.distillation import Distillation
from dmoe.model.losses.expert_losses import RowMean, total
from dmoe.model.network import Network, Outputs, watch_gradient


class Losses(NamedTuple):
    """Scalars of a step. bce and auxiliary are the share of this rank times the world size, so their means over ranks are the global
    values. The others are global.

    Attributes:
        correlation: the correlation loss, not multiplied by alpha.
        cec_batch: mean |r| over pairs of experts.
        dead: number of columns without variance.
        rows: global number of rows.
        auxiliary: weighted sum of the `terms` and the distillation.
    """

    bce: Tensor
    correlation: Tensor
    cec_batch: Tensor
    dead: Tensor
    rows: Tensor
    auxiliary: Tensor


class Objective(nn.Module):
    """BCE + alpha * L_corr + l2 / 2 * mean of squared embeddings + other terms + divergence from a teacher.

    This must be a leaf module for TorchRec's pipeline, whose tracing fails on the collectives here.

    Args:
        correlation: the de-correlation loss.
        alpha: weight of the de-correlation loss, multiplied by `controls.alpha_factor`.
        target: what is de-correlated: the `hidden` outputs of the experts, the `logit` of each expert alone, or its `residual` (label minus
            probability), whose covariance is the part of the error of an ensemble that de-correlation can lower.
        embedding_l2: weight of the squares of looked-up embeddings.
        within_class: compute correlations within the rows of each label.
        stop_below: hinge: the de-correlation loss has no gradient below this value.
        terms: other losses, from `expert_losses`.
        bce_weight: weight of the cross-entropy of the mixture.
        distillation: the divergence from a teacher, for batches that have the teacher's logits.
    """

    def __init__(
        self,
        correlation: CorrelationLoss,
        alpha: float,
        target: str,
        embedding_l2: float,
        within_class: bool = False,
        stop_below: float = 0.0,
        terms: Sequence[nn.Module] = (),
        bce_weight: float = 1.0,
        distillation: Distillation | None = None,
    ) -> None:
        super().__init__()
        self.distillation = distillation
        self.terms, self.bce_weight = nn.ModuleList(terms), bce_weight
        self.within_class, self.stop_below = within_class, stop_below
        self.correlation, self.alpha, self.target, self.embedding_l2 = correlation, alpha, target, embedding_l2
        self.controls = StepControls()

    def forward(
        self, outputs: Outputs, sets_BFK: list[Tensor], label_B: Tensor, weight_B: Tensor, teacher_B: Tensor | None = None
    ) -> tuple[Tensor, Losses]:
        # DistributedDataParallel averages over ranks. With this scale, the average is the mean over the global batch for any shares.
        scale = world_size() / all_reduce_sum(weight_B.sum(dtype=torch.float64)).clamp(min=1e-12)
        cross_entropy_B = nn.functional.binary_cross_entropy_with_logits(outputs.logit_B, label_B, reduction="none")
        bce = (cross_entropy_B * weight_B).sum() * scale.to(weight_B.dtype)
        target_BMD = self._target(outputs, label_B)
        target_BMD = watch_gradient(target_BMD, self.controls.gradient_norms, "correlation")
        mask_B = (weight_B > 0).to(target_BMD.dtype)
        correlation = self.correlation(target_BMD, mask_B, label_B if self.within_class else None)
        penalty = (correlation.loss - self.stop_below).relu() if self.stop_below else correlation.loss
        loss = self.bce_weight * bce + self.alpha * self.controls.alpha_factor * penalty
        if self.embedding_l2:
            squares_B = sum(x_BFK.square().sum((1, 2)) for x_BFK in sets_BFK)
            loss = loss + self.embedding_l2 / 2 * (squares_B * weight_B).sum() * scale.to(weight_B.dtype)
        auxiliary = torch.zeros_like(bce)
        if self.terms:
            auxiliary = total(self.terms, outputs, label_B, RowMean(weight_B, scale))
        if self.distillation is not None and teacher_B is not None:
            auxiliary = auxiliary + self.distillation(outputs.logit_B, teacher_B, RowMean(weight_B, scale))
        loss = loss + auxiliary
        detached = (bce.detach(), correlation.loss.detach(), correlation.mean_abs, correlation.dead, correlation.rows, auxiliary.detach())
        return loss, Losses(*detached)

    def _target(self, outputs: Outputs, label_B: Tensor) -> Tensor:
        if self.target == "hidden":
            return outputs.hidden_BMD
        if self.target == "logit":
            return outputs.expert_logit_BM.unsqueeze(2)
        return (label_B[:, None] - outputs.expert_logit_BM.sigmoid()).unsqueeze(2)


class TrainTask(nn.Module):
    """The model with its objective, in the form that TorchRec's pipeline calls: batch -> (loss, values that the loop logs and evaluates).

    Args:
        expert_logits: the terms of the objective need the logit of each expert alone.

    Attributes:
        controls: settings that may change at every step. The mixture and the objective share this object.
    """

    def __init__(self, model: Network, objective: Objective, expert_logits: bool = False) -> None:
        super().__init__()
        self.model, self.objective = model, objective
        self.controls = StepControls(expert_logits=expert_logits or objective.target != "hidden")
        objective.controls = model.mixture.controls = self.controls

    def forward(self, batch):  # type: ignore[no-untyped-def]  # an annotation would be traced
        outputs, sets_BFK = self.model(batch.dense_BD, batch.sparse, batch.weight_B)
        loss, losses = self.objective(outputs, sets_BFK, batch.label_B, batch.weight_B, batch.teacher_B)
        return loss, (losses, outputs, batch.label_B, batch.weight_B, batch.group_B)
