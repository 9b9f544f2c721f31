"""Group-weighted part-aware factorization machine: the embedding of a field has a part for each group of fields.

Shapes: B rows, F fields, K dims per field, G groups of fields and parts of an embedding, D = K / G dims per part.
"""

import torch
from torch import Tensor, nn

from dmoe.errors import UserError
from dmoe.model.experts.options import Count, Widths
from dmoe.model.experts.registry import register


@register("gwpfm")
class GwPFM(nn.Module):
    """sum_{i<j} r_g(i)g(j) v_i^g(j) * v_j^g(i), not summed over dims (GwPFM, Pan et al. 2024, arXiv 2403.00793).

    The text of the paper was not available; the formula is that of a public implementation (QunBB/RecSys). v_i^g is the part of the
    embedding of field i that is multiplied with fields of group g. This is between FM (one embedding for all fields) and FFM (one for each
    field). Pairs within a group count too. r starts at 1. In that implementation a part has the dims of a complete embedding, so tables are
    G times as large; for the same, set the dim to G times that of a part. Sums over groups make the cost linear in F.

    Args:
        num_fields: F.
        field_dim: K, a multiple of G.
        groups: number of groups, which are consecutive fields in nearly equal numbers; or the number of fields of each group.

    Shape:
        - Input: [B, F, K] float.
        - Output: [B, K / G].

    Examples:
        >>> GwPFM(num_fields=39, field_dim=16, groups=[13, 26])(torch.ones(2, 39, 16))[0, 0].item()
        741.0
    """

    def __init__(self, num_fields: int, field_dim: int, groups: Count | Widths = 2) -> None:
        super().__init__()
        if isinstance(groups, int):
            groups = [(num_fields + index) // groups for index in range(groups)]
        if sum(groups) != num_fields or min(groups) < 1:
            raise UserError(f"groups of {list(groups)} fields do not part {num_fields} fields")
        if field_dim % len(groups):
            raise UserError(f"{len(groups)} groups do not divide the fields' {field_dim} dims")
        self.group_sizes, self.out_dim = list(groups), field_dim // len(groups)
        # r_gh and r_hg weight the same pairs; only their mean matters.
        self.weight_GG = nn.Parameter(torch.ones(len(groups), len(groups)))

    def flops(self) -> int:
        """2 G^2 D + F D + G D multiply-adds, all of them element-wise."""
        groups, fields = len(self.group_sizes), sum(self.group_sizes)
        return 2 * self.out_dim * (2 * groups**2 + fields + groups)

    def forward(self, x_BFK: Tensor) -> Tensor:
        groups = len(self.group_sizes)
        parts = x_BFK.unflatten(2, (groups, self.out_dim)).split(self.group_sizes, 1)
        sums_BGGD = torch.stack([parts[group].sum(1) for group in range(groups)], 1)
        pairs_BD = (self.weight_GG.unsqueeze(2) * sums_BGGD * sums_BGGD.transpose(1, 2)).sum((1, 2))
        selves_BGD = torch.stack([parts[group][:, :, group].square().sum(1) for group in range(groups)], 1)
        return (pairs_BD - (self.weight_GG.diagonal().unsqueeze(1) * selves_BGD).sum(1)) / 2
