"""The model that a contender builds from its own blocks: the parts that no library has, in plain PyTorch, the same for all.

Shapes: B rows, F fields, K dims, I dense features, M experts, D width of an expert's output.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dmoe.model.losses.correlation import CorrelationLoss
from tools.bench.builders import Built

ALPHA = 0.01


class Mixture(nn.Module):
    """Experts with a table set each -> softmax gate -> tower, as ALGORITHM section 1 has it.

    Args:
        experts: M modules [B, F, K] -> [B, out].
        widths: out of each.
        fields: F, with the one of the dense features.
        dense: [B, I] -> [B, K] of each set.
        tower: [B, D] -> [B, 1].
    """

    def __init__(
        self,
        experts: Sequence[nn.Module],
        widths: Sequence[int],
        fields: int,
        dim: int,
        expert_dim: int,
        dense: Sequence[nn.Module],
        tower: nn.Module,
    ) -> None:
        super().__init__()
        self.experts, self.dense, self.tower = nn.ModuleList(experts), nn.ModuleList(dense), tower
        self.projections = nn.ModuleList(nn.Sequential(nn.Linear(w, expert_dim), nn.LayerNorm(expert_dim), nn.SiLU()) for w in widths)
        self.gates = nn.ModuleList(nn.Linear(fields * dim, 1) for _ in experts)

    def forward(self, dense_BI: Tensor, sets_BFK: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        pairs = zip(sets_BFK, self.dense, strict=True)
        inputs = [torch.cat([x_BFK, field(dense_BI).unsqueeze(1)], 1) for x_BFK, field in pairs]
        hidden = [project(expert(x)) for project, expert, x in zip(self.projections, self.experts, inputs, strict=True)]
        hidden_BMD = torch.stack(hidden, 1)
        gate_BM = torch.cat([gate(x.flatten(1)) for gate, x in zip(self.gates, inputs, strict=True)], 1).softmax(1)
        return self.tower((gate_BM.unsqueeze(2) * hidden_BMD).sum(1)).squeeze(1), hidden_BMD


class Loss(nn.Module):
    """Binary cross-entropy and, over more than one expert, dmoe's de-correlation loss: no contender has one of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.correlation = CorrelationLoss()

    def forward(self, logit_B: Tensor, hidden_BMD: Tensor, label_B: Tensor) -> Tensor:
        loss = nn.functional.binary_cross_entropy_with_logits(logit_B, label_B)
        if hidden_BMD.shape[1] > 1:
            loss = loss + ALPHA * self.correlation(hidden_BMD, torch.ones_like(label_B)).loss
        return loss


def trained(model: Any, optimizers: Sequence[torch.optim.Optimizer], batches: Iterator[tuple[tuple[Any, ...], Tensor]]) -> Built:
    """The plain training step on a model with `tables` and a `mixture`: the next inputs and label in, weights moved."""
    loss = Loss()

    def step() -> None:
        inputs, label_B = next(batches)
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss(*model(*inputs), label_B).backward()
        for optimizer in optimizers:
            optimizer.step()

    return Built(step, parameters_of(model.tables), parameters_of(model.mixture))


def parameters_of(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
