"""Field-weighted factorization machine: one learned weight per pair of fields.

Shapes: B rows, F fields, K dims per field, P = F (F - 1) / 2 pairs.
"""

import torch
from torch import Tensor, nn

from dmoe.errors import UserError
from dmoe.model.experts.registry import register


@register("fwfm")
class FwFM(nn.Module):
    """sum_{i<j} r_ij v_i * v_j (FwFM, Pan et al. 2018), not summed over dims, since the output of an expert needs more than one number.

    It is computed as the column sums of E * (R E), with R strictly upper triangular. Initially r = 1, which is a plain FM.

    Args:
        num_fields: F, at least 2.
        field_dim: K.

    Shape:
        - Input: [B, F, K] float.
        - Output: [B, K]. The sum over K is the second-order term of the paper.

    Examples:
        >>> FwFM(num_fields=39, field_dim=16)(torch.ones(2, 39, 16))[0, 0].item()
        741.0
    """

    def __init__(self, num_fields: int, field_dim: int) -> None:
        super().__init__()
        if num_fields < 2:
            raise UserError(f"{num_fields} field has no pairs, expected at least 2")
        self.weight_P = nn.Parameter(torch.ones(num_fields * (num_fields - 1) // 2))
        self.num_fields, self.out_dim = num_fields, field_dim

    def flops(self) -> int:
        """(F^2 + F) K multiply-adds."""
        return 2 * self.num_fields * (self.num_fields + 1) * self.out_dim

    def forward(self, x_BFK: Tensor) -> Tensor:
        first, second = torch.triu_indices(self.num_fields, self.num_fields, 1, device=x_BFK.device)
        upper_FF = self.weight_P.new_zeros(self.num_fields, self.num_fields).index_put((first, second), self.weight_P)
        return (x_BFK * (upper_FF @ x_BFK)).sum(1)
