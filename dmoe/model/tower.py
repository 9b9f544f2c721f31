"""What follows the interaction of an expert, and what follows the gated sum.

Shapes: B rows, I width of an expert's interaction, D width of its projected output.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from dmoe.model.experts.dense import ACTIVATIONS, dense_layers
from dmoe.model.experts.options import Activation


class Projection(nn.Sequential):
    """Linear -> norm -> activation: gives every expert one width, and the non-linearity without which ME equals SE.

    With norm `batch`, the linear layer alone: `NormalisedExperts` does the rest for all experts at once.

    Shape:
        - Input: [B, I].
        - Output: [B, D].
    """

    def __init__(self, in_dim: int, out_dim: int, norm: str, activation: Activation) -> None:
        # A bias before batch norm changes nothing: its gradient is rounding, which Adam would follow.
        linear = nn.Linear(in_dim, out_dim, bias=norm != "batch")
        if norm == "batch":
            super().__init__(linear)
        else:
            super().__init__(linear, nn.LayerNorm(out_dim) if norm == "layer" else nn.Identity(), ACTIVATIONS[activation]())


class Tower(nn.Module):
    """An MLP to one logit.

    Shape:
        - Input: [..., D].
        - Output: [...].
    """

    def __init__(self, in_dim: int, hidden: Sequence[int], activation: Activation, dropout: float) -> None:
        super().__init__()
        last = hidden[-1] if hidden else in_dim
        self.layers = nn.Sequential(*dense_layers(in_dim, hidden, activation, dropout), nn.Linear(last, 1))

    def forward(self, x_D: Tensor) -> Tensor:
        return self.layers(x_D).squeeze(-1)
