"""Bilinear maps of two sets of fields: value and gradients a piece of the rows at a time, so that no product of pairs is ever kept.

Shapes: N rows, n rows of a piece, P and F fields, H maps.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

ROWS_OF_A_CORE, ROWS_A_THREAD, ROWS_ON_A_DEVICE = 512, 2048, 1 << 16
"""Rows of a piece. [H * P, 512] float32 stays in a core's cache at H = 16, P = 40 (256 to 1024 are as fast). Threads wait for each other
after every operation, which pieces so small are not worth; a GPU wants one large product."""


def quadratic_maps(weight_HFF: Tensor, x_FN: Tensor) -> Tensor:
    """out[h, n] = sum_pf W[h, p, f] x[p, n] x[f, n]. Three matrix products of H F^2 N multiply-adds, forward and backward together.

    Shape:
        - Input: weight [H, F, F]; x [F, N]. Under autocast both are taken in its dtype.
        - Output: [H, N].
    """
    return _Quadratic.apply(_as_autocast(weight_HFF), _as_autocast(x_FN))


def bilinear_maps(weight_HPF: Tensor, x_PN: Tensor, y_FN: Tensor) -> Tensor:
    """out[h, n] = sum_pf W[h, p, f] x[p, n] y[f, n]. Four matrix products of H P F N multiply-adds, forward and backward together.

    Shape:
        - Input: weight [H, P, F]; x [P, N]; y [F, N]. Under autocast all are taken in its dtype.
        - Output: [H, N].
    """
    return _Bilinear.apply(_as_autocast(weight_HPF), _as_autocast(x_PN), _as_autocast(y_FN))


class _Quadratic(Function):
    @staticmethod
    def forward(ctx: Any, weight_HFF: Tensor, x_FN: Tensor) -> Tensor:
        ctx.save_for_backward(weight_HFF, x_FN)
        half_HFF = (weight_HFF + weight_HFF.transpose(1, 2)) * 0.5
        return _contracted(half_HFF, x_FN, x_FN)

    @staticmethod
    def backward(ctx: Any, grad_HN: Tensor) -> tuple[Tensor, Tensor]:
        weight_HFF, x_FN = ctx.saved_tensors
        symmetric_JF = (weight_HFF + weight_HFF.transpose(1, 2)).flatten(0, 1)
        grad_x_FN, grad_JF = torch.empty_like(x_FN), _zeros_like(symmetric_JF)
        for piece in _pieces(x_FN):
            grads_Jn = (grad_HN[:, None, piece] * x_FN[:, piece]).flatten(0, 1)
            grad_x_FN[:, piece] = symmetric_JF.t() @ grads_Jn
            grad_JF += grads_Jn @ x_FN[:, piece].t()
        return grad_JF.view_as(weight_HFF), grad_x_FN


class _Bilinear(Function):
    @staticmethod
    def forward(ctx: Any, weight_HPF: Tensor, x_PN: Tensor, y_FN: Tensor) -> Tensor:
        ctx.save_for_backward(weight_HPF, x_PN, y_FN)
        return _contracted(weight_HPF, x_PN, y_FN)

    @staticmethod
    def backward(ctx: Any, grad_HN: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        weight_HPF, x_PN, y_FN = ctx.saved_tensors
        weight_JF = weight_HPF.flatten(0, 1)
        grad_x_PN, grad_y_FN, grad_JF = torch.empty_like(x_PN), torch.empty_like(y_FN), _zeros_like(weight_JF)
        for piece in _pieces(x_PN):
            mixed_HPn = (weight_JF @ y_FN[:, piece]).unflatten(0, weight_HPF.shape[:2])
            grad_x_PN[:, piece] = (grad_HN[:, None, piece] * mixed_HPn).sum(0)
            grads_Jn = (grad_HN[:, None, piece] * x_PN[:, piece]).flatten(0, 1)
            grad_y_FN[:, piece] = weight_JF.t() @ grads_Jn
            grad_JF += grads_Jn @ y_FN[:, piece].t()
        return grad_JF.view_as(weight_HPF), grad_x_PN, grad_y_FN


def _contracted(weight_HPF: Tensor, x_PN: Tensor, y_FN: Tensor) -> Tensor:
    weight_JF = weight_HPF.flatten(0, 1)
    out_HN = x_PN.new_empty(len(weight_HPF), x_PN.shape[1])
    for piece in _pieces(x_PN):
        mixed_HPn = (weight_JF @ y_FN[:, piece]).unflatten(0, weight_HPF.shape[:2])
        out_HN[:, piece] = mixed_HPn.mul_(x_PN[:, piece]).sum(1)
    return out_HN


def _pieces(x_PN: Tensor) -> Iterator[slice]:
    size = _piece_rows(x_PN)
    return (slice(start, start + size) for start in range(0, x_PN.shape[1], size))


def _piece_rows(x_PN: Tensor) -> int:
    # A compiler would unroll the loop; it fuses what follows the product instead.
    if torch.compiler.is_compiling():
        return max(x_PN.shape[1], 1)
    if x_PN.device.type != "cpu":
        return ROWS_ON_A_DEVICE
    threads = torch.get_num_threads()
    return ROWS_OF_A_CORE if threads == 1 else ROWS_A_THREAD * threads


def _zeros_like(x: Tensor) -> Tensor:
    """What many pieces are added up in: float32 at least."""
    return torch.zeros_like(x, dtype=torch.promote_types(x.dtype, torch.float32))


def _as_autocast(x: Tensor) -> Tensor:
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if x.dtype == torch.float32 and torch.is_autocast_enabled(kind) else x
