"""The data-parallel part of the network: experts, gate, tower. Does not import TorchRec, since an exported scorer uses it.

Shapes: B rows, F fields, K dims of an embedding, S table sets, M experts, D width of the output of an expert, I dense features, L
selectors, G numbers that the gate has for an expert (1 or D).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dmoe.model.controls import StepControls


class Outputs(NamedTuple):
    """The outputs of the network, in float32 (in float64 if the model has this dtype).

    Attributes:
        logit_B: the logit of the mixture.
        hidden_BMD: projected outputs of the experts.
        gate_BMG: the gate.
        expert_logit_BM: the logit of each expert alone, or [B, 0] if it was not computed.
        left_out_logit_BM: the logit of the mixture without each expert, with the gate renormalized over the others, or [B, 0].
        selector_BLM: weights that each selector of a sparse gate gives to the experts; None for other gates.
    """

    logit_B: Tensor
    hidden_BMD: Tensor
    gate_BMG: Tensor
    expert_logit_BM: Tensor
    left_out_logit_BM: Tensor
    selector_BLM: Tensor | None = None


class ExpertMixture(nn.Module):
    """The data-parallel part: fields of every table set -> experts -> one gate -> one tower.

    Args:
        experts: M modules [B, F, K] -> [B, out_dim] with an attribute `out_dim`.
        projections: M modules [B, out_dim] -> [B, D].
        gate: sequence of M tensors [B, F * K] -> [B, M, 1] or [B, M, D]. A sparse gate returns a `Sparse`.
        tower: [..., D] -> [...]. Applied to the mixed output, and to the output of each expert if there are no `expert_towers`. None if
            it is not needed.
        dense_fields: S modules [B, I] -> [B, K] that add one field to each table set; empty without numeric features.
        set_of_expert: index of the table set that each expert reads.
        bf16: run under bfloat16 autocast. Norms and the tower's output stay in float32.
        expert_towers: M modules [B, D] -> [B] that compute the logit of each expert alone; empty if the experts share `tower`.
        norm: norm and activation for the outputs of all projections, ([B, M, D], mask [B]) -> [B, M, D]; None if the projections
            contain them.
        mix_logits: the logit is sum_m g_m z_m instead of tower(sum_m g_m h_m), where z_m is the logit of expert m alone.

    Attributes:
        controls: settings that may change at every step.
        skips: with a sparse gate, `logits` runs each expert only on the rows with a gate above 0 for it.
    """

    def __init__(
        self,
        experts: Sequence[nn.Module],
        projections: Sequence[nn.Module],
        gate: nn.Module,
        tower: nn.Module | None,
        dense_fields: Sequence[nn.Module],
        set_of_expert: Sequence[int],
        bf16: bool = False,
        expert_towers: Sequence[nn.Module] = (),
        mix_logits: bool = False,
        norm: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.experts, self.projections = nn.ModuleList(experts), nn.ModuleList(projections)
        self.dense_fields = nn.ModuleList(dense_fields)
        self.gate, self.tower, self.norm = gate, tower, norm
        self.expert_towers, self.mix_logits = nn.ModuleList(expert_towers), mix_logits
        self.set_of_expert, self.bf16 = list(set_of_expert), bf16
        self.controls, self.skips = StepControls(), True

    def logits(self, dense_BI: Tensor, sets_BFK: list[Tensor]) -> Tensor:
        """Computes only the logit [B], for scoring. With a sparse gate, each expert runs only on the rows that chose it."""
        with torch.autocast(dense_BI.device.type, torch.bfloat16, enabled=self.bf16):
            inputs = self._inputs(dense_BI, sets_BFK)
            if self.skips and getattr(self.gate, "sparse", False) and self.norm is None:
                return self._sparse_logit(inputs)
            if torch.compiler.is_exporting() and self.norm is None and not self.mix_logits:
                return self._exported_logit(inputs)
            return self._mixed_logit(self._hidden(inputs), self._gated(inputs)[0])

    def _exported_logit(self, inputs: list[Tensor]) -> Tensor:
        """The same logit, with the experts added up one by one. Other runtimes execute the sum over a stacked tensor inefficiently."""
        gate_BMG = self._gated(inputs)[0]
        mixed_BD = sum(gate_BMG[:, index] * hidden_BD for index, hidden_BD in enumerate(self._projected(inputs)))
        assert self.tower is not None
        return _wide(self.tower(mixed_BD))

    def _sparse_logit(self, inputs: list[Tensor]) -> Tensor:
        gate_BM = self._gated(inputs)[0].squeeze(2)
        mixed_BW: Tensor | None = None
        for index, x_BFK in enumerate(inputs):
            rows_R = gate_BM[:, index].nonzero().squeeze(1)
            if not len(rows_R):
                continue
            x_RFK = x_BFK if len(rows_R) == len(x_BFK) else x_BFK[rows_R]
            part_RW = _wide(self.projections[index](self.experts[index](x_RFK)))
            if self.mix_logits:
                tower = self.expert_towers[index] if self.expert_towers else self.tower
                assert tower is not None
                part_RW = _wide(tower(part_RW)).unsqueeze(1)
            if mixed_BW is None:
                mixed_BW = part_RW.new_zeros(len(gate_BM), part_RW.shape[1])
            mixed_BW.index_add_(0, rows_R, part_RW * gate_BM[rows_R, index].to(part_RW.dtype)[:, None])
        if mixed_BW is None:
            # There are no rows, or no row chose an expert, which is possible if M is not a power of 2.
            return self._mixed_logit(self._hidden(inputs), gate_BM.unsqueeze(2))
        if self.mix_logits:
            return mixed_BW.squeeze(1)
        assert self.tower is not None
        return _wide(self.tower(mixed_BW))

    def _mixed_logit(self, hidden_BMD: Tensor, gate_BMG: Tensor, logit_BM: Tensor | None = None) -> Tensor:
        """The logit of the mixture [B]. Pass the logits of the experts as `logit_BM` if they are already known."""
        if self.mix_logits:
            logit_BM = self._expert_logits(hidden_BMD) if logit_BM is None else logit_BM
            return (_wide(gate_BMG).squeeze(2) * logit_BM).sum(1)
        assert self.tower is not None
        return _wide(self.tower((gate_BMG * hidden_BMD).sum(1)))

    def _expert_logits(self, hidden_BMD: Tensor) -> Tensor:
        if not self.expert_towers:
            assert self.tower is not None
            return _wide(self.tower(hidden_BMD))
        return torch.stack([_wide(tower(hidden_BMD[:, expert])) for expert, tower in enumerate(self.expert_towers)], 1)

    def _inputs(self, dense_BI: Tensor, sets_BFK: list[Tensor]) -> list[Tensor]:
        if self.dense_fields:
            fields = [field(dense_BI).unsqueeze(1) for field in self.dense_fields]
            sets_BFK = [torch.cat([x_BFK, field_B1K], 1) for x_BFK, field_B1K in zip(sets_BFK, fields, strict=True)]
        return [sets_BFK[index] for index in self.set_of_expert]

    def _projected(self, inputs: list[Tensor]) -> list[Tensor]:
        return [project(expert(x_BFK)) for expert, project, x_BFK in zip(self.experts, self.projections, inputs, strict=True)]

    def _hidden(self, inputs: list[Tensor], mask_B: Tensor | None = None) -> Tensor:
        hidden_BMD = torch.stack(self._projected(inputs), 1)
        return hidden_BMD if self.norm is None else self.norm(hidden_BMD, mask_B)

    def _gated(self, inputs: list[Tensor]) -> tuple[Tensor, Tensor | None]:
        """The gate [B, M, G], and the selectors of a sparse gate (None for other gates)."""
        found = self.gate([x_BFK.flatten(1) for x_BFK in inputs])
        return found if isinstance(found, tuple) else (found, None)

    def forward(self, dense_BI: Tensor, sets_BFK: list[Tensor], mask_B: Tensor | None = None) -> Outputs:
        with torch.autocast(dense_BI.device.type, torch.bfloat16, enabled=self.bf16):
            inputs = self._inputs(dense_BI, sets_BFK)
            hidden_BMD = self._hidden(inputs, mask_B)
            gate_BMG, selector_BLM = self._gated(inputs)
            for_tower_BMD = watch_gradient(hidden_BMD, self.controls.gradient_norms, "task")
            if self.mix_logits:
                expert_logit_BM = self._expert_logits(for_tower_BMD)
                logit_B = self._mixed_logit(for_tower_BMD, gate_BMG, expert_logit_BM)
                none_B0 = logit_B.new_zeros(len(logit_B), 0)
            else:
                logit_B = self._mixed_logit(for_tower_BMD, gate_BMG)
                none_B0 = logit_B.new_zeros(len(logit_B), 0)
                alone = self.controls.expert_logits or not self.training
                expert_logit_BM = self._expert_logits(for_tower_BMD) if alone else none_B0
            without = self.controls.leave_out and not self.training and hidden_BMD.shape[1] > 1
            left_out_BM = self._left_out(hidden_BMD, gate_BMG, expert_logit_BM) if without else none_B0
        return Outputs(logit_B, _wide(hidden_BMD), _wide(gate_BMG), expert_logit_BM, left_out_BM, selector_BLM)

    def _left_out(self, hidden_BMD: Tensor, gate_BMG: Tensor, logit_BM: Tensor) -> Tensor:
        logits = []
        for expert in range(hidden_BMD.shape[1]):
            others = [index for index in range(hidden_BMD.shape[1]) if index != expert]
            rest_BNG = _wide(gate_BMG[:, others])
            # The gate of the others is rescaled to sum 1, however small it is. If it is exactly 0, it stays 0.
            rest_BNG = rest_BNG / rest_BNG.sum(1, keepdim=True).clamp(min=torch.finfo(rest_BNG.dtype).tiny)
            logits.append(self._mixed_logit(hidden_BMD[:, others], rest_BNG, logit_BM[:, others]))
        return torch.stack(logits, 1)


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def watch_gradient(x: Tensor, norms: dict[str, Tensor] | None, name: str) -> Tensor:
    """Returns a view of x. The backward pass writes the squared norm of the gradient of this view to `norms[name]`. If norms is None,
    returns x."""
    if norms is None or not x.requires_grad:
        return x
    branch = x.view_as(x)

    def note(grad: Tensor) -> None:
        norms[name] = grad.detach().float().square().sum()

    branch.register_hook(note)
    return branch
