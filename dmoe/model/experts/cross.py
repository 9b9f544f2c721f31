"""The cross layers of DCN V2, equal to TorchRec's CrossNet and LowRankCrossNet. Does not import TorchRec, since scorers use them.

Names, shapes and initialization of the weights are the same as in TorchRec, so that checkpoints are compatible.

Shapes: B rows, N inputs.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
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
        if torch.compiler.is_compiling() or torch.is_autocast_enabled(x0_BN.device.type) or not torch.is_grad_enabled():
            x_BN = x0_BN
            for kernel_NN, bias_N1 in zip(self.kernels, self.bias, strict=True):
                x_BN = torch.addcmul(x_BN, x0_BN, linear(x_BN, kernel_NN, bias_N1.squeeze(1)))
            return x_BN
        out_BN: Tensor = _Crosses.apply(x0_BN, *self.kernels, *self.bias)
        return out_BN


class _Crosses(Function):
    """The layers of `Cross` with a backward pass that accumulates gradients in place: half as many passes over [B, N] as autograd makes."""

    @staticmethod
    def forward(ctx: Any, x0_BN: Tensor, *parameters: Tensor) -> Tensor:
        kernels_NN, bias_N1 = parameters[: len(parameters) // 2], parameters[len(parameters) // 2 :]
        x_BN, inputs, mapped = x0_BN, [], []
        for kernel_NN, one_N1 in zip(kernels_NN, bias_N1, strict=True):
            inputs.append(x_BN)
            mapped.append(linear(x_BN, kernel_NN, one_N1.squeeze(1)))
            x_BN = torch.addcmul(x_BN, x0_BN, mapped[-1])
        ctx.save_for_backward(*inputs, *mapped, *kernels_NN)
        return x_BN

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BN: Tensor) -> tuple[Tensor, ...]:
        layers = len(ctx.saved_tensors) // 3
        inputs, mapped, kernels = (ctx.saved_tensors[start : start + layers] for start in range(0, 3 * layers, layers))
        x0_BN, grads = inputs[0], []
        grad_x0_BN = torch.zeros_like(x0_BN)
        for x_BN, mapped_BN, kernel_NN in zip(inputs[::-1], mapped[::-1], kernels[::-1], strict=True):
            through_BN = grad_BN * x0_BN
            grad_x0_BN.addcmul_(grad_BN, mapped_BN)
            grads.append((through_BN.t() @ x_BN, through_BN.sum(0).unsqueeze(1)))
            grad_BN = torch.addmm(grad_BN, through_BN, kernel_NN)
        of_kernels, of_bias = zip(*grads[::-1], strict=True)
        return grad_x0_BN.add_(grad_BN), *of_kernels, *of_bias


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
