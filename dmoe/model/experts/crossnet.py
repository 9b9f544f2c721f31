"""Cross network v2: explicit bit-wise crosses, whose order grows by one with each layer.

Shapes: B rows, F fields, K dims per field, N = F * K.
"""

from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from dmoe.model.experts.cross import Cross, LowRankCross
from dmoe.model.experts.options import Layers
from dmoe.model.experts.registry import register


@register("crossnet")
class CrossNetV2(nn.Module):
    """x_{l+1} = x_0 * (W_l x_l + b_l) + x_l, with W_l full or U_l V_l (DCN V2, Wang et al. 2021).

    Args:
        num_fields: F.
        field_dim: K.
        num_layers: crosses reach order num_layers + 1.
        low_rank: rank of U_l [N, rank] and V_l [rank, N]; 0 means a full W_l. A rank below N / 2 is cheaper than full.

    Shape:
        - Input: [B, F, K] float.
        - Output: [B, N].

    Examples:
        >>> CrossNetV2(num_fields=39, field_dim=16, low_rank=64)(torch.zeros(2, 39, 16)).shape
        torch.Size([2, 624])
    """

    def __init__(
        self, num_fields: int, field_dim: int, num_layers: Layers = 3, low_rank: Annotated[int, Field(ge=0, le=1 << 20)] = 0
    ) -> None:
        super().__init__()
        self.out_dim = num_fields * field_dim
        self.cross = LowRankCross(self.out_dim, num_layers, low_rank) if low_rank else Cross(self.out_dim, num_layers)
        self.num_layers, self.low_rank = num_layers, low_rank

    def flops(self) -> int:
        """Multiply-adds per layer: N^2 (full) or 2 N rank (low rank), and N for the cross."""
        return 2 * self.num_layers * self.out_dim * ((2 * self.low_rank or self.out_dim) + 1)

    def forward(self, x_BFK: Tensor) -> Tensor:
        return self.cross(x_BFK.flatten(1))
