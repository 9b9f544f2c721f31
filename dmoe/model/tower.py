"""What follows the interaction of an expert, and what follows the gated sum.

Shapes: B rows, I width of an expert's interaction, D width of its projected output.
"""

from collections.abc import Sequence

from torch import Tensor, nn

ACTIVATIONS: dict[str, type[nn.Module]] = {"silu": nn.SiLU, "relu": nn.ReLU}


class Projection(nn.Sequential):
    """Linear -> norm -> activation: gives every expert one width, and the non-linearity without which ME equals SE.

    Shape:
        - Input: [B, I].
        - Output: [B, D].
    """

    def __init__(self, in_dim: int, out_dim: int, norm: str, activation: str) -> None:
        super().__init__(
            nn.Linear(in_dim, out_dim),
            nn.LayerNorm(out_dim) if norm == "layer" else nn.Identity(),
            ACTIVATIONS[activation](),
        )


class Tower(nn.Module):
    """An MLP to one logit.

    Shape:
        - Input: [..., D].
        - Output: [...].
    """

    def __init__(self, in_dim: int, hidden: Sequence[int], activation: str, dropout: float) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in hidden:
            layers += [nn.Linear(in_dim, width), ACTIVATIONS[activation]()]
            layers += [nn.Dropout(dropout)] if dropout else []
            in_dim = width
        self.layers = nn.Sequential(*layers, nn.Linear(in_dim, 1))

    def forward(self, x_D: Tensor) -> Tensor:
        return self.layers(x_D).squeeze(-1)
