"""MaskNet: products of the fields with masks that are computed from all fields.

Shapes: B rows, F fields, K dims per field, N = F * K, W input width of a block, H output width of a block.
"""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from dmoe.model.experts.dense import linear_flops
from dmoe.model.experts.options import Count, DropoutRate, Layers
from dmoe.model.experts.registry import register


class MaskBlock(nn.Module):
    """ReLU(LN(W (mask(E) * x))), mask(E) = W_2 ReLU(W_1 E + b_1) + b_2.

    Shape:
        - Input: E [B, N], the fields; x [B, W], the values that are masked.
        - Output: [B, H].
    """

    def __init__(self, field_width: int, in_dim: int, out_dim: int, mask_ratio: float, dropout: float) -> None:
        super().__init__()
        mask_hidden = max(1, round(in_dim * mask_ratio))
        self.mask = nn.Sequential(nn.Linear(field_width, mask_hidden), nn.ReLU(), nn.Linear(mask_hidden, in_dim))
        self.hidden = nn.Sequential(nn.Linear(in_dim, out_dim, bias=False), nn.LayerNorm(out_dim), nn.ReLU(), nn.Dropout(dropout))

    def forward(self, fields_BN: Tensor, x_BW: Tensor) -> Tensor:
        return self.hidden(self.mask(fields_BN) * x_BW)


@register("masknet")
class MaskNet(nn.Module):
    """MaskBlocks on layer-normalized fields, in parallel or in series (MaskNet, Wang et al. 2021).

    Args:
        num_fields: F.
        field_dim: K.
        num_blocks: number of blocks. In parallel, each block has 2 N^2 mask_ratio + N block_dim parameters.
        block_dim: H.
        mode: parallel: every block masks the fields, and the outputs are concatenated; serial: a block masks the output of the
            previous block.
        mask_ratio: width of the hidden layer of a mask, divided by the width of the mask.
        dropout: after every block.

    Shape:
        - Input: [B, F, K] float.
        - Output: [B, num_blocks * H] in parallel, [B, H] in series.

    Examples:
        >>> MaskNet(num_fields=39, field_dim=16, mode="serial")(torch.zeros(2, 39, 16)).shape
        torch.Size([2, 64])
    """

    def __init__(
        self,
        num_fields: int,
        field_dim: int,
        num_blocks: Layers = 3,
        block_dim: Count = 64,
        mode: Literal["parallel", "serial"] = "parallel",
        mask_ratio: Annotated[float, Field(gt=0, le=100)] = 1.0,
        dropout: DropoutRate = 0.0,
    ) -> None:
        super().__init__()
        width = num_fields * field_dim
        in_dims = [width, *[block_dim if mode == "serial" else width] * (num_blocks - 1)]
        self.norm = nn.LayerNorm(field_dim)
        self.blocks = nn.ModuleList(MaskBlock(width, in_dim, block_dim, mask_ratio, dropout) for in_dim in in_dims)
        self.mode, self.out_dim = mode, block_dim * (1 if mode == "serial" else num_blocks)
        self._masked = sum(in_dims)

    def flops(self) -> int:
        """FLOPs of the linear layers and of the products with the masks."""
        return linear_flops(self) + 2 * self._masked

    def forward(self, x_BFK: Tensor) -> Tensor:
        fields_BN, x_BW = x_BFK.flatten(1), self.norm(x_BFK).flatten(1)
        if self.mode == "parallel":
            return torch.cat([block(fields_BN, x_BW) for block in self.blocks], 1)
        for block in self.blocks:
            x_BW = block(fields_BN, x_BW)
        return x_BW
