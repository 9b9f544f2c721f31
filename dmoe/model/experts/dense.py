"""Stacks of linear layers, used by several experts.

Shapes: B rows, I inputs, O outputs.
"""

from collections.abc import Sequence

from torch import nn

from dmoe.model.experts.options import Activation

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "silu": nn.SiLU}


def dense_layers(
    in_dim: int, hidden: Sequence[int], activation: Activation = "relu", dropout: float = 0.0, layer_norm: bool = False
) -> nn.Sequential:
    """Linear -> [layer norm] -> activation -> [dropout], for each width.

    Shape:
        - Input: [B, in_dim].
        - Output: [B, hidden[-1]].
    """
    layers: list[nn.Module] = []
    for width in hidden:
        layers.append(nn.Linear(in_dim, width))
        if layer_norm:
            layers.append(nn.LayerNorm(width))
        layers.append(ACTIVATIONS[activation]())
        if dropout:
            layers.append(nn.Dropout(dropout))
        in_dim = width
    return nn.Sequential(*layers)


def linear_flops(module: nn.Module) -> int:
    """Sum of 2 * I * O over the linear layers of a module: its FLOPs per row, if each layer gets one vector per row."""
    return sum(2 * layer.in_features * layer.out_features for layer in module.modules() if isinstance(layer, nn.Linear))
