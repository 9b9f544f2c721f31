"""Gates: how much of each expert's output reaches the tower.

Shapes: B rows, M experts, N inputs of an expert (fields * dims), D width of an expert's output.
"""

from collections.abc import Sequence
from typing import NamedTuple

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
        self.readers = _readers(set_of_expert)
        self.logits = nn.Linear(sum(input_dims[reader] for reader in self.readers), len(input_dims))

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        return self.logits(torch.cat([inputs[reader] for reader in self.readers], 1)).softmax(1).unsqueeze(2)


class Sparse(NamedTuple):
    """gate: [B, M, 1]. selector: [B, L, M], what each of L selectors gives each expert; it sums to 1 over M, or to less where M is no power
    of 2."""

    gate_BM1: Tensor
    selector_BLM: Tensor


class DSelectKGate(nn.Module):
    """At most k experts a row, chosen by a function that is smooth everywhere (DSelect-k, Hazimeh et al. 2021, its per-example gate).

    Selector l of k has ceil(log2 M) numbers z = W_l x + b_l. S is 0 below -gamma / 2, 1 above gamma / 2 and a cubic between, so that expert
    m, whose number has the bits c_j, gets r_lm = prod_j (S(z_j) where c_j is 1, 1 - S(z_j) where it is 0): one expert gets all where every
    z is beyond gamma / 2. The gate is sum_l softmax(a)_l r_lm, a = V x + c. Where M is no power of 2, some codes are nobody's: a selector
    then sums to less than 1 until `SelectorPenalty` has driven it away from them.

    Args:
        input_dims: N of each expert.
        set_of_expert: the table set that each expert reads; a set that several read enters once.
        selectors: k.
        gamma: width of the smooth step; the wider, the later a choice is final.

    Shape:
        - Input: M tensors [B, N_m].
        - Output: Sparse, float32 at least.
    """

    sparse = True
    code_MJ: Tensor

    def __init__(self, input_dims: Sequence[int], set_of_expert: Sequence[int], selectors: int, gamma: float = 1.0) -> None:
        super().__init__()
        experts = len(input_dims)
        self.readers = _readers(set_of_expert)
        self.selectors, self.gamma = selectors, gamma
        self.bits = max(experts - 1, 0).bit_length()
        width = sum(input_dims[reader] for reader in self.readers)
        # A single expert has no bits, and a layer of width 0 no initial weights.
        self.codes = nn.Linear(width, selectors * self.bits) if self.bits else None
        self.weights = nn.Linear(width, selectors)
        codes = [[bool(expert >> bit & 1) for bit in range(self.bits)] for expert in range(experts)]
        self.register_buffer("code_MJ", torch.tensor(codes), persistent=False)

    def forward(self, inputs: Sequence[Tensor]) -> Sparse:
        x_BN = torch.cat([inputs[reader] for reader in self.readers], 1)
        share_BL1 = _wide(self.weights(x_BN)).softmax(1).unsqueeze(2)
        if self.codes is None:
            selector_BLM = torch.ones_like(share_BL1)
        else:
            step_BL1J = smooth_step(_wide(self.codes(x_BN)), self.gamma).unflatten(1, (self.selectors, 1, self.bits))
            selector_BLM = torch.where(self.code_MJ, step_BL1J, 1 - step_BL1J).prod(3)
        return Sparse((share_BL1 * selector_BLM).sum(1).unsqueeze(2), selector_BLM)


def smooth_step(x: Tensor, gamma: float) -> Tensor:
    """0 below -gamma / 2, 1 above gamma / 2, -2 x^3 / gamma^3 + 3 x / (2 gamma) + 1 / 2 between: its first derivative is continuous.

    Exactly 0 and 1 at the ends, for which x is cut off first: a gate that is not exactly 0 spares nobody an expert.
    """
    t = (x / gamma + 0.5).clamp(0, 1)
    return t * t * (3 - 2 * t)


def _readers(set_of_expert: Sequence[int]) -> list[int]:
    """The first expert that reads each table set."""
    return [list(set_of_expert).index(index) for index in sorted(set(set_of_expert))]


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def make_gate(
    kind: str,
    input_dims: Sequence[int],
    out_dim: int,
    set_of_expert: Sequence[int] | None = None,
    selectors: int = 1,
    gamma: float = 1.0,
) -> nn.Module:
    """The gate of that name: softmax, mmoe, mean, elementwise or dselect_k. Every expert reads a table set of its own where nothing else
    is said."""
    sets = range(len(input_dims)) if set_of_expert is None else set_of_expert
    if kind == "mean":
        return MeanGate()
    if kind == "mmoe":
        return MMoEGate(input_dims, sets)
    if kind == "dselect_k":
        return DSelectKGate(input_dims, sets, selectors, gamma)
    return SoftmaxGate(input_dims) if kind == "softmax" else ElementwiseGate(input_dims, out_dim)
