"""Multi-layer perceptron (MLP): implicit feature crosses.

Shapes: B rows, F fields, K dims per field, N = F * K.
"""

from torch import Tensor, nn

from dmoe.model.experts.dense import dense_layers, linear_flops
from dmoe.model.experts.options import Activation, DropoutRate, Widths
from dmoe.model.experts.registry import register


@register("mlp")
class MLP(nn.Module):
    """A multi-layer perceptron on the concatenated fields (the deep part of Wide & Deep, Cheng et al. 2016, and DeepFM, Guo et al. 2017).

    Args:
        num_fields: F.
        field_dim: K.
        hidden: width of each layer; the last layer is the output. The cost grows with N * hidden[0].
        activation: relu or silu, after every layer.
        dropout: after every activation.
        layer_norm: add a layer norm between each layer and its activation.

    Shape:
        - Input: [B, F, K] float.
        - Output: [B, hidden[-1]].

    Examples:
        >>> MLP(num_fields=39, field_dim=16, hidden=[64, 32])(torch.zeros(2, 39, 16)).shape
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
        self.layers = dense_layers(num_fields * field_dim, hidden, activation, dropout, layer_norm)
        self.out_dim = hidden[-1]

    def flops(self) -> int:
        """FLOPs of the linear layers."""
        return linear_flops(self)

    def forward(self, x_BFK: Tensor) -> Tensor:
        return self.layers(x_BFK.flatten(1))
