"""All metrics of an evaluation, over the rows of all ranks.

Shapes: B rows of a batch, M experts, D width of an expert's output, G 1 or D.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from dmoe.distributed import all_reduce_sum, world_size
from dmoe.errors import UserError
from dmoe.json_text import defined
from dmoe.metrics.ambiguity import Ambiguity
from dmoe.metrics.auc import BinnedAUC, ExactAUC
from dmoe.metrics.cec import CrossExpertCorrelation
from dmoe.metrics.grouped import GroupedAUC
from dmoe.model.mixture import Outputs

SOLO_BINS = 65536
"""Number of bins for the AUC of each single expert, which does not need five digits."""


class NotFinite(UserError):
    """The outputs of the model are not finite for some rows, so metrics are undefined; raised on all ranks."""


class Evaluation:
    """Accumulates batches, then reports all metrics. AUC, logloss, calibration and gate statistics use the weights of the rows. The
    correlation of the experts does not: it describes their outputs, and each row counts once.

    Call `reset` and use the object again, instead of making a new one: torchmetrics objects have reference cycles, so Python frees their
    counts (tens of MiB) late.

    Args:
        auc: `binned` or `exact`.
        bins: number of bins of the binned AUC.
    """

    def __init__(self, auc: str, bins: int, device: torch.device) -> None:
        self.device = device
        self.auc: BinnedAUC | ExactAUC = BinnedAUC(bins).to(device) if auc == "binned" else ExactAUC()
        self.bins = bins
        self.grouped = GroupedAUC()
        self.solo: list[BinnedAUC] = []
        self.left_out: list[BinnedAUC] = []
        self.correlation: CrossExpertCorrelation | None = None
        self.ambiguity: Ambiguity | None = None
        self.reset()

    def reset(self) -> None:
        """Removes all rows."""
        self.sums = torch.zeros(7, dtype=torch.float64, device=self.device)
        self.gate_M: Tensor | None = None
        self.gate_entropy = torch.zeros((), dtype=torch.float64, device=self.device)
        self.has_groups = False
        self.not_finite = 0
        self.largest: tuple[int, float] | None = None
        for metric in (self.auc, self.grouped, *self.solo, *self.left_out, self.correlation, self.ambiguity):
            if metric is not None:
                metric.reset()

    def update(
        self, outputs: Outputs, label_B: Tensor, weight_B: Tensor, group_B: Tensor | None = None, dense_BD: Tensor | None = None
    ) -> None:
        """
        Args:
            weight_B: 0 for padding.
            group_B: group ids; if given, the GAUC is reported too.
            dense_BD: numeric features; used to name a possible cause if an output is not finite.
        """
        bad_B = ~_finite_rows(outputs)
        if bool(bad_B.any()):
            self._note(bad_B, dense_BD)
            return
        experts, width = outputs.hidden_BMD.shape[1:]
        if self.correlation is None or self.ambiguity is None:
            self.ambiguity = Ambiguity(experts).to(self.device)
            self.correlation = CrossExpertCorrelation(experts, width).to(self.device)
            self.solo = self._aucs(experts)
        if self.gate_M is None:
            self.gate_M = torch.zeros(experts, dtype=torch.float64, device=self.device)
            if len(self.left_out) != outputs.left_out_logit_BM.shape[1]:
                self.left_out = self._aucs(outputs.left_out_logit_BM.shape[1])
        logit_B = outputs.logit_B.double()
        mask_B = weight_B.double()
        loss_B = torch.nn.functional.binary_cross_entropy_with_logits(logit_B, label_B.double(), reduction="none")
        positive_B = mask_B * label_B
        counts = [(mask_B > 0).sum(), (positive_B > 0).sum()]
        gate_BM = outputs.gate_BMG.double().mean(2)
        weighed = [mask_B, positive_B, mask_B * logit_B.sigmoid(), mask_B * loss_B, mask_B * (gate_BM > 0).sum(1)]
        self.sums += torch.stack([*counts, *(x_B.sum() for x_B in weighed)])
        self.gate_M += (gate_BM * mask_B[:, None]).sum(0)
        self.gate_entropy += (torch.special.entr(gate_BM).sum(1) * mask_B).sum()
        self.ambiguity.update(logit_B, outputs.expert_logit_BM, gate_BM, label_B, mask_B)
        self.auc.update(logit_B, label_B, mask_B)
        if group_B is not None:
            self.has_groups = True
            self.grouped.update(logit_B, label_B, mask_B, group_B)
        for expert, solo in enumerate(self.solo):
            solo.update(outputs.expert_logit_BM[:, expert], label_B, mask_B)
        for expert, left_out in enumerate(self.left_out):
            left_out.update(outputs.left_out_logit_BM[:, expert], label_B, mask_B)
        self.correlation.update(outputs.hidden_BMD, label_B, mask_B)

    def _aucs(self, count: int) -> list[BinnedAUC]:
        return [BinnedAUC(min(self.bins, SOLO_BINS)).to(self.device) for _ in range(count)]

    def _note(self, bad_B: Tensor, dense_BD: Tensor | None) -> None:
        self.not_finite += int(bad_B.sum())
        if self.largest is None and dense_BD is not None and dense_BD.shape[1]:
            row_D = dense_BD[int(bad_B.cpu().int().argmax())]
            place = int(row_D.abs().argmax())
            self.largest = place, float(row_D[place])

    def _refuse(self, dense: Sequence[str]) -> None:
        count = int(all_reduce_sum(torch.tensor(float(self.not_finite), dtype=torch.float64, device=self.device)))
        if not count:
            return
        found: list[tuple[int, float] | None] = [self.largest]
        if world_size() > 1:
            found = [None] * world_size()
            dist.all_gather_object(found, self.largest)
        advice = "the model overflowed: try lower learning rates, or optimizer.dense.clip_norm=1"
        if (largest := next((one for one in found if one is not None), None)) is not None:
            advice = f"the largest number of the first is {dense[largest[0]]}, {largest[1]:.4g}; if training had such ones, {advice}"
        raise NotFinite(f"{count:,} row{'s' * (count != 1)} with an output that is not finite, so there is no metric: {advice}")

    def compute(self, dense: Sequence[str] = ()) -> dict[str, Any]:
        """The metrics over all ranks, returned on each rank: numbers and lists; undefined values are `None`.

        Args:
            dense: names of the numeric features passed to `update`.

        Raises:
            NotFinite: on all ranks, if an output was not finite on any rank.
        """
        self._refuse(dense)
        assert self.correlation is not None
        assert self.ambiguity is not None
        assert self.gate_M is not None
        rows, clicks, weight, positives, predicted, loss, active = all_reduce_sum(self.sums.clone()).tolist()
        gate_M = (all_reduce_sum(self.gate_M.clone()) / weight).tolist()
        entropy = float(all_reduce_sum(self.gate_entropy.clone()) / weight)
        auc = float(self.auc.compute())
        correlation, ambiguity = self.correlation.compute(), self.ambiguity.compute()
        rate = positives / weight
        base = entropy_of(rate)
        figures = {
            "rows": int(rows),
            "positives": int(clicks),
            "auc": auc,
            "auc_error_bound": self.auc.error_bound,
            "logloss": loss / weight,
            "ne": loss / weight / base if base else math.nan,
            "calibration": predicted / positives if positives else math.nan,
            "cec": correlation.cec,
            "cec_floor": correlation.floor,
            "cec_matrix": correlation.matrix,
            "cec_by_class": correlation.by_class,
            "cec_by_class_floor": correlation.by_class_floor,
            "cec_by_class_ceiling": correlation.by_class_ceiling,
            "cec_within_class": correlation.within_class,
            "cka_matrix": correlation.cka,
            "dead_dims": correlation.dead,
            "expert_variance": correlation.variance,
            "ambiguity": ambiguity.value,
            "ambiguity_even": ambiguity.even,
            "expert_logloss": ambiguity.expert_logloss,
            "expert_responsibility": ambiguity.responsibility,
            "expert_auc": [float(solo.compute()) for solo in self.solo],
            "expert_left_out_auc": [float(left_out.compute()) for left_out in self.left_out],
            "gate_mass": gate_M,
            "active_experts": active / weight,
            "effective_experts": math.exp(entropy_over(gate_M)),
            "gate_perplexity": math.exp(entropy),
        }
        if weight != rows:
            figures["weight"] = weight
        if self.has_groups:
            gauc = self.grouped.compute()
            figures |= {"gauc": gauc.value, "gauc_groups": gauc.groups, "gauc_share": gauc.share}
        return dict(defined(figures))


def _finite_rows(outputs: Outputs) -> Tensor:
    """[B] bool: all measured outputs of the row are finite."""
    parts = [outputs.logit_B[:, None], outputs.expert_logit_BM, outputs.left_out_logit_BM, outputs.gate_BMG.flatten(1)]
    if outputs.selector_BLM is not None:
        parts.append(outputs.selector_BLM.flatten(1))
    logits = torch.cat(parts, 1)
    return torch.isfinite(logits).all(1) & torch.isfinite(outputs.hidden_BMD).flatten(1).all(1)


def entropy_of(rate: float) -> float:
    """Cross-entropy, in nats, of a model that always predicts the base rate."""
    return entropy_over([rate, 1 - rate])


def entropy_over(mass: list[float]) -> float:
    return -sum(p * math.log(p) for p in mass if p > 0)
