"""The projection after the interaction of an expert, and the tower after the gated sum.

Shapes: B rows, I width of an expert's interaction, D width of its projected output.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from dmoe.model.experts.dense import ACTIVATIONS, dense_layers
from dmoe.model.experts.options import Activation


class Projection(nn.Sequential):
    """Linear -> norm -> activation. All experts get the same width, and a non-linearity, without which multi-embedding equals single
    embedding.

    With norm `batch`, it is only the linear layer; `NormalizedExperts` applies norm and activation to all experts at once.

    Shape:
        - Input: [B, I].
        - Output: [B, D].
    """

    def __init__(self, in_dim: int, out_dim: int, norm: str, activation: Activation) -> None:
        # A bias before batch norm has no effect. Its gradient is only rounding, which Adam would scale up.
        linear = nn.Linear(in_dim, out_dim, bias=norm != "batch")
        if norm == "batch":
            super().__init__(linear)
        else:
            super().__init__(linear, nn.LayerNorm(out_dim) if norm == "layer" else nn.Identity(), ACTIVATIONS[activation]())


class Tower(nn.Module):
    """An MLP with one output, the logit.

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
