"""Gates: how much of each expert's output reaches the tower.

Shapes: B rows, M experts, N inputs of an expert (fields * dims), D width of an expert's output.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class SoftmaxGate(nn.Module):
    """g = softmax(a) with a_m = w_m . E_m + b_m: each expert's logit from its own embeddings (docs/method.md).

    Args:
        input_dims: N of each expert.

    Shape:
        - Input: M tensors [B, N_m].
        - Output: [B, M, 1], which sums to 1 over M.
    """

    def __init__(self, input_dims: Sequence[int]) -> None:
        super().__init__()
        self.logits = nn.ModuleList(nn.Linear(dim, 1) for dim in input_dims)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        logit_BM = torch.cat([linear(x_BN) for linear, x_BN in zip(self.logits, inputs, strict=True)], 1)
        return logit_BM.softmax(1).unsqueeze(2)


class MeanGate(nn.Module):
    """1 / M for every expert: Multi-Embedding's published baseline has no gate."""

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        return inputs[0].new_full((inputs[0].shape[0], len(inputs), 1), 1 / len(inputs))


class ElementwiseGate(nn.Module):
    """A softmax over the experts for every output dimension (Crocodile, element-wise).

    Shape:
        - Input: M tensors [B, N_m].
        - Output: [B, M, D], which sums to 1 over M.
    """

    def __init__(self, input_dims: Sequence[int], out_dim: int) -> None:
        super().__init__()
        self.logits = nn.ModuleList(nn.Linear(dim, out_dim) for dim in input_dims)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        return torch.stack([linear(x_BN) for linear, x_BN in zip(self.logits, inputs, strict=True)], 1).softmax(1)


class MMoEGate(nn.Module):
    """A softmax over the experts from one linear layer on all table sets together (Ma et al. 2018, where the experts share one input).

    Args:
        input_dims: N of each expert.
        set_of_expert: the table set that each expert reads; a set that several read enters once.

    Shape:
        - Input: M tensors [B, N_m].
        - Output: [B, M, 1], which sums to 1 over M.
    """

    def __init__(self, input_dims: Sequence[int], set_of_expert: Sequence[int]) -> None:
        super().__init__()
        self.readers = [list(set_of_expert).index(index) for index in sorted(set(set_of_expert))]
        self.logits = nn.Linear(sum(input_dims[reader] for reader in self.readers), len(input_dims))

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        return self.logits(torch.cat([inputs[reader] for reader in self.readers], 1)).softmax(1).unsqueeze(2)


def make_gate(kind: str, input_dims: Sequence[int], out_dim: int, set_of_expert: Sequence[int] | None = None) -> nn.Module:
    """The gate of that name: softmax, mmoe, mean or elementwise. Every expert reads a table set of its own where nothing else is said."""
    if kind == "mean":
        return MeanGate()
    if kind == "mmoe":
        return MMoEGate(input_dims, range(len(input_dims)) if set_of_expert is None else set_of_expert)
    return SoftmaxGate(input_dims) if kind == "softmax" else ElementwiseGate(input_dims, out_dim)
