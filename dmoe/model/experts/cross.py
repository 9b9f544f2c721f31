"""The cross layers of DCN V2, as TorchRec's CrossNet and LowRankCrossNet but without TorchRec, which a scorer must not need.

Names, shapes and initial draws of the weights are TorchRec's own, so that checkpoints of either fit the other.

Shapes: B rows, N inputs.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import linear


def _drawn(layers: int, *shape: int) -> nn.ParameterList:
    return nn.ParameterList(nn.Parameter(nn.init.xavier_normal_(torch.empty(shape))) for _ in range(layers))


class Cross(nn.Module):
    """x_{l+1} = x_0 * (W_l x_l + b_l) + x_l.

    Shape:
        - Input: [B, N].
        - Output: [B, N].
    """

    def __init__(self, width: int, num_layers: int) -> None:
        super().__init__()
        self.kernels = _drawn(num_layers, width, width)
        self.bias = nn.ParameterList(nn.Parameter(torch.zeros(width, 1)) for _ in range(num_layers))

    def forward(self, x0_BN: Tensor) -> Tensor:
        x_BN = x0_BN
        for kernel_NN, bias_N1 in zip(self.kernels, self.bias, strict=True):
            x_BN = torch.addcmul(x_BN, x0_BN, linear(x_BN, kernel_NN, bias_N1.squeeze(1)))
        return x_BN


class LowRankCross(nn.Module):
    """x_{l+1} = x_0 * (U_l V_l x_l + b_l) + x_l, with U_l [N, rank] and V_l [rank, N].

    Shape:
        - Input: [B, N].
        - Output: [B, N].
    """

    def __init__(self, width: int, num_layers: int, rank: int) -> None:
        super().__init__()
        self.W_kernels = _drawn(num_layers, width, rank)
        self.V_kernels = _drawn(num_layers, rank, width)
        self.bias = nn.ParameterList(nn.Parameter(torch.zeros(width)) for _ in range(num_layers))

    def forward(self, x0_BN: Tensor) -> Tensor:
        x_BN = x0_BN
        for up, down, bias_N in zip(self.W_kernels, self.V_kernels, self.bias, strict=True):
            x_BN = torch.addcmul(x_BN, x0_BN, linear(linear(x_BN, down), up, bias_N))
        return x_BN
