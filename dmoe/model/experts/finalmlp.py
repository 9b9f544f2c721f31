"""FinalMLP: two MLPs on the same fields, fused by a bilinear product.

Shapes: B rows, F fields, K dims per field, N = F * K, A and C widths of the two streams, H heads, O width of the output.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dmoe.errors import UserError
from dmoe.model.experts.dense import dense_layers, linear_flops
from dmoe.model.experts.options import Activation, Count, DropoutRate, Widths
from dmoe.model.experts.registry import register


class FieldGate(nn.Module):
    """x * 2 sigmoid(MLP(chosen fields of x)): the feature selection of a stream.

    Shape:
        - Input: [B, F, K].
        - Output: [B, N].
    """

    def __init__(self, num_fields: int, field_dim: int, fields: Sequence[int], hidden: int) -> None:
        super().__init__()
        if outside := [field for field in fields if not 0 <= field < num_fields]:
            raise UserError(f"there is no field {outside[0]} to gate by, expected 0..{num_fields - 1}")
        self.fields = list(fields)
        self.gate = nn.Sequential(nn.Linear(len(fields) * field_dim, hidden), nn.ReLU(), nn.Linear(hidden, num_fields * field_dim))

    def forward(self, x_BFK: Tensor) -> Tensor:
        context = torch.cat([x_BFK[:, field] for field in self.fields], 1)
        return x_BFK.flatten(1) * (2 * self.gate(context).sigmoid())


@register("finalmlp")
class FinalMLP(nn.Module):
    """w_a a + w_c c + b + sum_h a_h^T W_h c_h of two streams a and c, split into heads (FinalMLP, Mao et al. 2023).

    The outer products of the heads are computed first. Applying W is then one matrix product, without a tensor of O times the width of a
    stream.

    Args:
        num_fields: F.
        field_dim: K.
        hidden_a, hidden_c: layers of the two streams.
        num_heads: H, a divisor of both last widths. The bilinear product has A * C / H * O parameters.
        fused_dim: O.
        gate_fields_a, gate_fields_c: indices of the fields that the feature gate of a stream reads; empty for no gate. Without gates,
            streams of equal layers differ only in their initial weights.
        gate_hidden: width of the hidden layer of the gates.
        activation: relu or silu, after every layer of the streams.
        dropout: after every activation.

    Shape:
        - Input: [B, F, K] float.
        - Output: [B, O].

    Examples:
        >>> FinalMLP(num_fields=39, field_dim=16, gate_fields_a=[0, 5])(torch.zeros(2, 39, 16)).shape
        torch.Size([2, 64])
    """

    def __init__(
        self,
        num_fields: int,
        field_dim: int,
        hidden_a: Widths = (400, 400),
        hidden_c: Widths = (400, 400),
        num_heads: Count = 40,
        fused_dim: Count = 64,
        gate_fields_a: Sequence[int] = (),
        gate_fields_c: Sequence[int] = (),
        gate_hidden: Count = 64,
        activation: Activation = "relu",
        dropout: DropoutRate = 0.0,
    ) -> None:
        super().__init__()
        width_a, width_c = hidden_a[-1], hidden_c[-1]
        if width_a % num_heads or width_c % num_heads:
            raise UserError(f"num_heads {num_heads} does not divide the streams' last widths, {width_a} and {width_c}")
        self.gate_a, self.gate_c = (
            FieldGate(num_fields, field_dim, fields, gate_hidden) if fields else nn.Flatten() for fields in (gate_fields_a, gate_fields_c)
        )
        self.stream_a = dense_layers(num_fields * field_dim, hidden_a, activation, dropout)
        self.stream_c = dense_layers(num_fields * field_dim, hidden_c, activation, dropout)
        self.linear_a, self.linear_c = nn.Linear(width_a, fused_dim), nn.Linear(width_c, fused_dim, bias=False)
        self.bilinear = nn.Linear(width_a * width_c // num_heads, fused_dim, bias=False)
        self.num_heads, self.out_dim = num_heads, fused_dim
        self._gated = num_fields * field_dim * (bool(gate_fields_a) + bool(gate_fields_c))

    def flops(self) -> int:
        """FLOPs of the linear layers, the outer products, and the products with the feature gates."""
        return linear_flops(self) + 2 * self.bilinear.in_features + 2 * self._gated

    def forward(self, x_BFK: Tensor) -> Tensor:
        a_BA, c_BC = self.stream_a(self.gate_a(x_BFK)), self.stream_c(self.gate_c(x_BFK))
        a_BHA, c_BHC = a_BA.unflatten(1, (self.num_heads, -1)), c_BC.unflatten(1, (self.num_heads, -1))
        outer_BHAC = a_BHA.unsqueeze(3) * c_BHC.unsqueeze(2)
        return self.linear_a(a_BA) + self.linear_c(c_BC) + self.bilinear(outer_BHAC.flatten(1))
