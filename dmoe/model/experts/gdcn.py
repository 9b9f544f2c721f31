"""Gated cross network: explicit crosses, each multiplied by a learned gate.

Shapes: B rows, F fields, K dims per field, N = F * K.
"""

from torch import Tensor, nn

from dmoe.model.experts.dense import linear_flops
from dmoe.model.experts.options import Layers
from dmoe.model.experts.registry import register


@register("gdcn")
class GatedCrossNet(nn.Module):
    """x_{l+1} = x_0 * (W_l x_l + b_l) * sigmoid(V_l x_l) + x_l (GDCN, Wang et al. 2023).

    Args:
        num_fields: F.
        field_dim: K.
        num_layers: crosses reach order num_layers + 1. The cost is twice that of a full-rank cross network.

    Shape:
        - Input: [B, F, K] float.
        - Output: [B, N].

    Examples:
        >>> GatedCrossNet(num_fields=39, field_dim=16)(torch.zeros(2, 39, 16)).shape
        torch.Size([2, 624])
    """

    def __init__(self, num_fields: int, field_dim: int, num_layers: Layers = 3) -> None:
        super().__init__()
        self.out_dim = num_fields * field_dim
        crosses = [nn.Linear(self.out_dim, self.out_dim) for _ in range(num_layers)]
        gates = [nn.Linear(self.out_dim, self.out_dim, bias=False) for _ in range(num_layers)]
        # The same initialization as in TorchRec's CrossNet.
        for layer in [*crosses, *gates]:
            nn.init.xavier_normal_(layer.weight)
        for layer in crosses:
            nn.init.zeros_(layer.bias)
        self.crosses, self.gates = nn.ModuleList(crosses), nn.ModuleList(gates)

    def flops(self) -> int:
        """FLOPs of the linear layers and of the two products [N] of each layer."""
        return linear_flops(self) + 4 * len(self.crosses) * self.out_dim

    def forward(self, x_BFK: Tensor) -> Tensor:
        x0_BN = x_BN = x_BFK.flatten(1)
        for cross, gate in zip(self.crosses, self.gates, strict=True):
            x_BN = x0_BN * cross(x_BN) * gate(x_BN).sigmoid() + x_BN
        return x_BN
