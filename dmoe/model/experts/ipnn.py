"""Inner-product network: an MLP on the fields and the inner products of all pairs of fields.

Shapes: B rows, F fields, K dims per field, N = F * K, P = F (F - 1) / 2 pairs.
"""

import torch
from torch import Tensor, nn

from dmoe.errors import UserError
from dmoe.model.experts.dense import dense_layers, linear_flops
from dmoe.model.experts.options import Activation, DropoutRate, Widths
from dmoe.model.experts.registry import register


@register("ipnn")
class IPNN(nn.Module):
    """MLP([v_1 ... v_F, <v_i, v_j> for i < j]) (PNN with inner products, Qu et al. 2016).

    Args:
        num_fields: F, at least 2.
        field_dim: K.
        hidden: width of each layer; the last layer is the output. The cost grows with (N + P) * hidden[0].
        activation: relu or silu, after every layer.
        dropout: after every activation.
        layer_norm: add a layer norm between each layer and its activation.

    Shape:
        - Input: [B, F, K] float.
        - Output: [B, hidden[-1]].

    Examples:
        >>> IPNN(num_fields=39, field_dim=16, hidden=[64, 32])(torch.zeros(2, 39, 16)).shape
        torch.Size([2, 32])
    """

    def __init__(
        self,
        num_fields: int,
        field_dim: int,
        hidden: Widths = (400, 400),
        activation: Activation = "relu",
        dropout: DropoutRate = 0.0,
        layer_norm: bool = False,
    ) -> None:
        super().__init__()
        if num_fields < 2:
            raise UserError(f"{num_fields} field has no pairs, expected at least 2")
        self.layers = dense_layers(num_fields * field_dim + num_fields * (num_fields - 1) // 2, hidden, activation, dropout, layer_norm)
        self.num_fields, self.field_dim, self.out_dim = num_fields, field_dim, hidden[-1]

    def flops(self) -> int:
        """FLOPs of the linear layers, and F^2 K multiply-adds for the Gram matrix, of which only the upper triangle is used."""
        return linear_flops(self) + 2 * self.num_fields**2 * self.field_dim

    def forward(self, x_BFK: Tensor) -> Tensor:
        gram_BFF = x_BFK @ x_BFK.transpose(1, 2)
        first, second = torch.triu_indices(self.num_fields, self.num_fields, 1, device=x_BFK.device)
        pairs_BP = gram_BFF.flatten(1).index_select(1, first * self.num_fields + second)
        return self.layers(torch.cat([x_BFK.flatten(1), pairs_BP], 1))
