"""Compressed interaction network: explicit vector-wise feature crosses.

Shapes: B rows, F fields, K dims per field, P input maps of a layer, H output maps of a layer.
"""

import math

import torch
from torch import Tensor, nn

from dmoe.model.experts.bilinear import bilinear_maps, quadratic_maps
from dmoe.model.experts.options import Widths
from dmoe.model.experts.registry import register


@register("cin")
class CIN(nn.Module):
    """x^l_h = sum_pf W^l_hpf (x^{l-1}_p * x^0_f); the maps of each layer are summed over K (xDeepFM, Lian et al. 2018, eq. 6, 8).

    The output concatenates these sums. A layer is a bilinear form of x^{l-1} and x^0. Forward and backward process a piece of the rows at
    a time, so no tensor [B, P * F, K] is computed and no tensor [B, H * P, K] is kept. The first layer is a quadratic form, which depends
    only on W_h + W_h^T. For the last layer only the sums over K are needed: W^L times the Gram matrix of x^{L-1} and x^0. Forward and
    backward take 247 ms at F = 40, K = 16, B = 4096, maps 16-16 on one CPU thread; with one large product per layer, kept for the backward
    pass, they take 715 ms.

    Args:
        num_fields: F.
        field_dim: K.
        layer_maps: H of each layer. The cost of a row grows with P * F * H * K: keep H <= 32.

    Shape:
        - Input: [B, F, K] float.
        - Output: [B, sum(layer_maps)].

    Examples:
        >>> CIN(num_fields=39, field_dim=16, layer_maps=[16, 8])(torch.zeros(2, 39, 16)).shape
        torch.Size([2, 24])
    """

    in_pieces = True
    """Do not compile this module for a CPU: compiled code would not process the rows in pieces, and would be slower."""

    def __init__(self, num_fields: int, field_dim: int, layer_maps: Widths = (16, 16)) -> None:
        super().__init__()
        in_maps = [num_fields, *layer_maps[:-1]]
        self.weights_HPF = nn.ParameterList(
            torch.empty(out, maps, num_fields).uniform_(-1, 1) / math.sqrt(maps * num_fields)
            for maps, out in zip(in_maps, layer_maps, strict=True)
        )
        self.field_dim, self.out_dim = field_dim, sum(layer_maps)

    def flops(self) -> int:
        """H P (F + 1) K multiply-adds per layer; P F K + H P F for the last layer."""
        *inner, last = [weight.shape for weight in self.weights_HPF]
        adds = sum(maps * before * (fields + 1) * self.field_dim for maps, before, fields in inner)
        return 2 * (adds + last[1] * last[2] * self.field_dim + last.numel())

    def forward(self, x_BFK: Tensor) -> Tensor:
        x_BPK, pooled = x_BFK, []
        for index, weight_HPF in enumerate(list(self.weights_HPF)[:-1]):
            x_BPK = bilinear_maps(weight_HPF, x_BPK, x_BFK) if index else quadratic_maps(weight_HPF, x_BFK)
            # An exported graph has the maps first: it need not move them to add them up.
            pooled.append(x_BPK.transpose(0, 1).sum(2).t() if torch.compiler.is_exporting() else x_BPK.sum(2))
        gram_BPF = x_BPK @ x_BFK.transpose(1, 2)
        pooled.append(nn.functional.linear(gram_BPF.flatten(1), self.weights_HPF[-1].flatten(1)))
        return torch.cat(pooled, 1)
