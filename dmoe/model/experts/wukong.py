"""Wukong: stacked factorization machines. The order of crosses doubles with each layer.

Shapes: B rows, F input fields of a layer, O output fields of a layer, K dims per field, R rank of the compressed products.
"""

import torch
from torch import Tensor, nn

from dmoe.model.experts.dense import dense_layers, linear_flops
from dmoe.model.experts.options import Count, Layers, Widths
from dmoe.model.experts.registry import register


class WukongLayer(nn.Module):
    """LN([FMB(X); LCB(X)] + W X). If O equals F, the residual is X without W.

    FMB(X) = MLP(LN(X X^T Y)), Y [F, R]; LCB(X) = W_L X.

    Shape:
        - Input: [B, F, K].
        - Output: [B, O, K].
    """

    def __init__(self, fields: int, field_dim: int, fm_fields: int, linear_fields: int, rank: int, hidden: Widths) -> None:
        super().__init__()
        out = fm_fields + linear_fields
        self.compress = nn.Linear(fields, rank, bias=False)
        self.fm = nn.Sequential(
            nn.LayerNorm(fields * rank), dense_layers(fields * rank, hidden), nn.Linear(hidden[-1], fm_fields * field_dim)
        )
        self.linear = nn.Linear(fields, linear_fields, bias=False)
        self.residual = nn.Linear(fields, out, bias=False) if out != fields else nn.Identity()
        self.norm = nn.LayerNorm(field_dim)
        self.fields, self.field_dim, self.fm_fields = fields, field_dim, fm_fields

    def flops(self) -> int:
        along_fields = sum(linear_flops(part) for part in (self.compress, self.linear, self.residual))
        return linear_flops(self.fm) + self.field_dim * along_fields + 2 * self.fields * self.field_dim * self.compress.out_features

    def forward(self, x_BFK: Tensor) -> Tensor:
        x_BKF = x_BFK.transpose(1, 2)
        products_BFR = x_BFK @ self.compress(x_BKF)
        fm_BOK = self.fm(products_BFR.flatten(1)).unflatten(1, (self.fm_fields, self.field_dim))
        fields_BOK = torch.cat([fm_BOK, self.linear(x_BKF).transpose(1, 2)], 1)
        return self.norm(fields_BOK + self.residual(x_BKF).transpose(1, 2))


@register("wukong")
class Wukong(nn.Module):
    """Layers of a factorization-machine block and a linear compression block (Wukong, Zhang et al. 2024, arXiv 2403.02545).

    Args:
        num_fields: F of the first layer.
        field_dim: K.
        num_layers: crosses reach order 2^num_layers.
        fm_fields: output fields of the factorization-machine block of a layer.
        linear_fields: output fields of the linear compression block of a layer.
        rank: R. The factorization-machine block computes F * R products instead of F^2.
        hidden: hidden layers (ReLU) of the MLP in this block, the most expensive part: F * R * hidden[0] + hidden[-1] * fm_fields * K.

    Shape:
        - Input: [B, F, K] float.
        - Output: [B, (fm_fields + linear_fields) * K].

    Examples:
        >>> Wukong(num_fields=39, field_dim=16)(torch.zeros(2, 39, 16)).shape
        torch.Size([2, 512])
    """

    def __init__(
        self,
        num_fields: int,
        field_dim: int,
        num_layers: Layers = 2,
        fm_fields: Count = 16,
        linear_fields: Count = 16,
        rank: Count = 8,
        hidden: Widths = (128,),
    ) -> None:
        super().__init__()
        out = fm_fields + linear_fields
        in_fields = [num_fields, *[out] * (num_layers - 1)]
        layers = [WukongLayer(fields, field_dim, fm_fields, linear_fields, rank, hidden) for fields in in_fields]
        self.layers, self.out_dim = nn.Sequential(*layers), out * field_dim
        self._flops = sum(layer.flops() for layer in layers)

    def flops(self) -> int:
        """FLOPs of the linear layers (K times for those along the fields) and of the products X (X^T Y)."""
        return self._flops

    def forward(self, x_BFK: Tensor) -> Tensor:
        return self.layers(x_BFK).flatten(1)
