"""Gates, which weight the outputs of the experts before the tower.

Shapes: B rows, M experts, N inputs of an expert (fields * dims), D width of the output of an expert.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn


class SoftmaxGate(nn.Module):
    """g = softmax(a) with a_m = w_m . E_m + b_m: the logit of expert m is computed from its own embeddings E_m (docs/method.md).

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
    """1 / M for every expert, as in the published Multi-Embedding baseline, which has no gate."""

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        return inputs[0].new_full((inputs[0].shape[0], len(inputs), 1), 1 / len(inputs))


class ElementwiseGate(nn.Module):
    """A softmax over the experts for each output dimension (the element-wise gate of Crocodile).

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
    """A softmax over the experts, from one linear layer on all table sets (Ma et al. 2018, where the experts share one input).

    Args:
        input_dims: N of each expert.
        set_of_expert: the table set that each expert reads. A set that several experts read is used once.

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
    """gate: [B, M, 1]. selector: [B, L, M], the weights that each of L selectors gives to the experts. They sum to 1 over M; if M is not a
    power of 2, the sum may be smaller."""

    gate_BM1: Tensor
    selector_BLM: Tensor


class DSelectKGate(nn.Module):
    """Chooses at most k experts per row by a smooth function (the per-example gate of DSelect-k, Hazimeh et al. 2021).

    Each of k selectors l computes ceil(log2 M) numbers z = W_l x + b_l. S (`smooth_step`) is 0 below -gamma / 2, 1 above gamma / 2 and
    cubic between. Let c_j be the bits of m, the index of an expert. The selector gives expert m the weight r_lm = prod_j q_j, where q_j is
    S(z_j) if c_j = 1 and 1 - S(z_j) if c_j = 0. If every |z_j| > gamma / 2, one expert gets all the weight. The gate is
    sum_l softmax(a)_l r_lm with a = V x + c. If M is not a power of 2, some codes have no expert: the weights of a selector may sum to less
    than 1 until `SelectorPenalty` has driven it away from such codes.

    Args:
        input_dims: N of each expert.
        set_of_expert: the table set that each expert reads. A set that several experts read is used once.
        selectors: k.
        gamma: width of the smooth step. With a wider step, a choice becomes final later.

    Shape:
        - Input: M tensors [B, N_m].
        - Output: Sparse, float32 or float64.
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
        # A single expert has no bits, and a layer of width 0 cannot be initialized.
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
    """0 below -gamma / 2, 1 above gamma / 2, -2 x^3 / gamma^3 + 3 x / (2 gamma) + 1 / 2 between. The first derivative is continuous.

    x is clamped first, so that the result is exactly 0 or 1 outside: an expert is skipped only if its gate is exactly 0.
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
    """Builds the gate of a kind: softmax, mmoe, mean, elementwise or dselect_k. If `set_of_expert` is None, every expert has its own table
    set."""
    sets = range(len(input_dims)) if set_of_expert is None else set_of_expert
    if kind == "mean":
        return MeanGate()
    if kind == "mmoe":
        return MMoEGate(input_dims, sets)
    if kind == "dselect_k":
        return DSelectKGate(input_dims, sets, selectors, gamma)
    return SoftmaxGate(input_dims) if kind == "softmax" else ElementwiseGate(input_dims, out_dim)
