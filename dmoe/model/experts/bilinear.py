"""Bilinear maps of two sets of fields. Value and gradients are computed for a piece of the rows at a time, so no pair products are kept.

Shapes: B rows, P and F fields, H maps, K dims per field, J = H * P; n = b * K for a piece of b rows.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

BLOCKS = 4
"""Blocks of fields in the quadratic form of an exported graph. 4 to 8 are about equally fast for 40 fields; each adds operations, which
cost most for one row."""
COLUMNS_OF_A_CORE, COLUMNS_A_THREAD, COLUMNS_ON_A_DEVICE = 512, 2048, 1 << 16
"""n of a piece: with one thread, per thread with several, and on a GPU. [J, 512] float32 fits in the cache of a core at H = 16, P = 40 (256
to 1024 are as fast). Threads synchronize after every operation, so they need larger pieces; a GPU needs one large product."""


def quadratic_maps(weight_HFF: Tensor, x_BFK: Tensor) -> Tensor:
    """out[b, h, k] = sum_pf W[h, p, f] x[b, p, k] x[b, f, k]. Three matrix products of B K H F^2 multiply-adds, including backward.

    Shape:
        - Input: weight [H, F, F]; x [B, F, K]. Under autocast, both are converted to its dtype.
        - Output: [B, H, K].
    """
    if torch.compiler.is_exporting():
        return _exported_quadratic(weight_HFF, x_BFK)
    out_BHK: Tensor = _Quadratic.apply(_as_autocast(weight_HFF), _as_autocast(x_BFK))
    return out_BHK


def bilinear_maps(weight_HPF: Tensor, x_BPK: Tensor, y_BFK: Tensor) -> Tensor:
    """out[b, h, k] = sum_pf W[h, p, f] x[b, p, k] y[b, f, k]. Four matrix products of B K H P F multiply-adds, including backward.

    Shape:
        - Input: weight [H, P, F]; x [B, P, K]; y [B, F, K]. Under autocast, all are converted to its dtype.
        - Output: [B, H, K].
    """
    if torch.compiler.is_exporting():
        return _rows(_contracted(weight_HPF, _columns(x_BPK), _columns(y_BFK)), y_BFK)
    out_BHK: Tensor = _Bilinear.apply(_as_autocast(weight_HPF), _as_autocast(x_BPK), _as_autocast(y_BFK))
    return out_BHK


class _Quadratic(Function):
    @staticmethod
    def forward(ctx: Any, weight_HFF: Tensor, x_BFK: Tensor) -> Tensor:
        ctx.save_for_backward(weight_HFF, x_BFK)
        half_HFF = (weight_HFF + weight_HFF.transpose(1, 2)) * 0.5
        out_BHK = x_BFK.new_empty(len(x_BFK), len(weight_HFF), x_BFK.shape[2])
        for piece in _pieces(x_BFK):
            x_Fn = _columns(x_BFK[piece])
            out_BHK[piece] = _rows(_contracted(half_HFF, x_Fn, x_Fn), x_BFK)
        return out_BHK

    @staticmethod
    def backward(ctx: Any, grad_BHK: Tensor) -> tuple[Tensor, Tensor]:
        weight_HFF, x_BFK = ctx.saved_tensors
        symmetric_JF = (weight_HFF + weight_HFF.transpose(1, 2)).flatten(0, 1)
        grad_x_BFK, grad_FJ = torch.empty_like(x_BFK), _zeros_like(symmetric_JF.t())
        for piece in _pieces(x_BFK):
            x_Fn = _columns(x_BFK[piece])
            outer_Jn = (_columns(grad_BHK[piece]).unsqueeze(1) * x_Fn).flatten(0, 1)
            grad_x_BFK[piece] = _rows(symmetric_JF.t() @ outer_Jn, x_BFK)
            grad_FJ += x_Fn @ outer_Jn.t()
        return grad_FJ.t().reshape(weight_HFF.shape), grad_x_BFK


class _Bilinear(Function):
    @staticmethod
    def forward(ctx: Any, weight_HPF: Tensor, x_BPK: Tensor, y_BFK: Tensor) -> Tensor:
        ctx.save_for_backward(weight_HPF, x_BPK, y_BFK)
        out_BHK = y_BFK.new_empty(len(y_BFK), len(weight_HPF), y_BFK.shape[2])
        for piece in _pieces(y_BFK):
            out_BHK[piece] = _rows(_contracted(weight_HPF, _columns(x_BPK[piece]), _columns(y_BFK[piece])), y_BFK)
        return out_BHK

    @staticmethod
    def backward(ctx: Any, grad_BHK: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        weight_HPF, x_BPK, y_BFK = ctx.saved_tensors
        weight_JF = weight_HPF.flatten(0, 1)
        grad_x_BPK, grad_y_BFK, grad_FJ = torch.empty_like(x_BPK), torch.empty_like(y_BFK), _zeros_like(weight_JF.t())
        for piece in _pieces(y_BFK):
            y_Fn, grad_H1n = _columns(y_BFK[piece]), _columns(grad_BHK[piece]).unsqueeze(1)
            mixed_HPn = (weight_JF @ y_Fn).unflatten(0, weight_HPF.shape[:2])
            grad_x_BPK[piece] = _rows(mixed_HPn.mul_(grad_H1n).sum(0), x_BPK)
            outer_Jn = (grad_H1n * _columns(x_BPK[piece])).flatten(0, 1)
            grad_y_BFK[piece] = _rows(weight_JF.t() @ outer_Jn, y_BFK)
            grad_FJ += y_Fn @ outer_Jn.t()
        return grad_FJ.t().reshape(weight_HPF.shape), grad_x_BPK, grad_y_BFK


def _exported_quadratic(weight_HFF: Tensor, x_BFK: Tensor) -> Tensor:
    """Computes all rows at once, since an exported graph cannot loop over rows. Callers should pass a few hundred rows at a time.

    x^T W x = x^T T x with T lower triangular: a block of fields is multiplied only with the fields up to it. With BLOCKS blocks, the
    products have (BLOCKS + 1) / (2 BLOCKS) of the multiply-adds, and what they give stays in the cache of a core.
    """
    lower_HFF = weight_HFF.tril() + weight_HFF.triu(1).transpose(1, 2)
    x_Fn, fields = _columns(x_BFK), x_BFK.shape[1]
    edges = sorted({fields * block // BLOCKS for block in range(BLOCKS + 1)})
    blocks = [_contracted(lower_HFF[:, low:high, :high], x_Fn[low:high], x_Fn[:high]) for low, high in pairwise(edges)]
    return _rows(sum(blocks[1:], blocks[0]), x_BFK)


def _contracted(weight_HPF: Tensor, x_Pn: Tensor, y_Fn: Tensor) -> Tensor:
    mixed_HPn = (weight_HPF.flatten(0, 1) @ y_Fn).unflatten(0, weight_HPF.shape[:2])
    # In an exported graph, an in-place operation adds a copy.
    return (mixed_HPn * x_Pn if torch.compiler.is_exporting() else mixed_HPn.mul_(x_Pn)).sum(1)


def _columns(x_bFK: Tensor) -> Tensor:
    return x_bFK.transpose(0, 1).flatten(1)


def _rows(x_Fn: Tensor, like_BFK: Tensor) -> Tensor:
    return x_Fn.unflatten(1, (-1, like_BFK.shape[2])).transpose(0, 1)


def _pieces(x_BFK: Tensor) -> Iterator[slice]:
    rows = _piece_rows(x_BFK)
    return (slice(start, start + rows) for start in range(0, len(x_BFK), rows))


def _piece_rows(x_BFK: Tensor) -> int:
    # A compiler would unroll the loop. Without the loop, it fuses the operations after the product.
    if torch.compiler.is_compiling():
        return max(len(x_BFK), 1)
    threads = torch.get_num_threads()
    columns = COLUMNS_OF_A_CORE if threads == 1 else COLUMNS_A_THREAD * threads
    return -(-(columns if x_BFK.device.type == "cpu" else COLUMNS_ON_A_DEVICE) // x_BFK.shape[2])


def _zeros_like(x: Tensor) -> Tensor:
    """A buffer in which pieces are added up, in float32 or float64.

    It has the shape [F, J], not [J, F]: MKL runs a product with few columns at half speed if their number is not a multiple of 8 (F = 27:
    45 instead of 85 GFLOP/s).
    """
    return torch.zeros_like(x, dtype=torch.promote_types(x.dtype, torch.float32))


def _as_autocast(x: Tensor) -> Tensor:
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if x.dtype == torch.float32 and torch.is_autocast_enabled(kind) else x
