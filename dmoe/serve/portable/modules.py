"""A scorer as one module of tensors, and its dense part alone: what is exported.

Shapes: B rows, F categorical features, I numeric features, S table sets, K dims of a set, C columns of all sets, V ids of all rows' bags,
R rows of all features.
"""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dmoe.model.mixture import ExpertMixture
from dmoe.serve.onnx_engine import DENSE, EMBEDDINGS, IDS, LOGIT, PROBABILITY, lengths_name, values_name
from dmoe.serve.rows import FullRows
from dmoe.serve.scorer import Scorer

ROWS, SCALE, OFFSETS = "rows", "scale", "offsets"
OUTPUTS = [PROBABILITY, LOGIT]


class DensePart(nn.Module):
    """What follows the tables.

    Attributes:
        inputs: the arguments' names: `dense` [B, I] where the model has numbers; `embeddings` [B, F, C], the sets side by side; float32.

    Shape:
        - Output: probability [B] and logit [B] float32.
    """

    def __init__(self, scorer: Scorer) -> None:
        super().__init__()
        about = scorer.about
        self.mixture, self.dims = in_float32(scorer.mixture), about.set_dims
        self.dense_columns = DenseColumns(self.mixture.dense_fields) if about.dense else None
        self.mixture.dense_fields = nn.ModuleList()
        self.inputs = [DENSE] * bool(about.dense) + [EMBEDDINGS]

    def forward(self, *given: Tensor) -> tuple[Tensor, Tensor]:
        x_BFC = given[-1]
        if self.dense_columns:
            x_BFC = torch.cat([x_BFC, self.dense_columns(given[0]).unsqueeze(1)], 1)
        logit_B = self.mixture.logits(x_BFC.new_zeros(0), list(x_BFC.split(self.dims, 2)))
        return logit_B.sigmoid(), logit_B


class WholeScorer(nn.Module):
    """Ids in, as `Scorer.logits` takes them; out as of DensePart.

    Attributes:
        inputs: the arguments' names: `dense` [B, I] float32 where the model has numbers; `ids` [B, F] int64; of each multi-valued feature
            `NAME.values` [V] and `NAME.lengths` [B] int64.
        tables: the names of what follows them: `rows` [R, C] and, of int8 rows, `scale` [R, S]. They are arguments, so that no copy of
            tables that may be larger than memory becomes part of the graph.
    """

    offset_F: Tensor

    def __init__(self, scorer: Scorer, dense: DensePart) -> None:
        super().__init__()
        about, rows = scorer.about, scorer.rows
        assert isinstance(rows, FullRows)
        self.dense, self.dims, self.many = dense, about.set_dims, [one.pooling for one in about.features]
        self.register_buffer("offset_F", rows.offset_F, persistent=False)
        bags = [one.name for one in about.features if one.pooling != "none"]
        self.inputs = [DENSE] * bool(about.dense) + [IDS] + [make(name) for name in bags for make in (values_name, lengths_name)]
        self.tables = [ROWS] + [SCALE] * (about.rows == "int8")

    def forward(self, *given: Tensor) -> tuple[Tensor, Tensor]:
        named = list(given)
        numbers = [named.pop(0)] if self.inputs[0] == DENSE else []
        ids_BF = named.pop(0)
        scale_RS = named.pop() if SCALE in self.tables else None
        rows_RC = named.pop()
        looked_up_BFC = self._looked_up(ids_BF + self.offset_F, rows_RC, scale_RS)
        for index, pooling in enumerate(self.many):
            if pooling != "none":
                values_V, lengths_B = named.pop(0), named.pop(0)
                x_VC = self._looked_up(values_V + self.offset_F[index], rows_RC, scale_RS)
                pooled_BC = _pooled(x_VC, lengths_B, pooling == "mean")
                parts = [looked_up_BFC[:, :index], pooled_BC.unsqueeze(1), looked_up_BFC[:, index + 1 :]]
                looked_up_BFC = torch.cat(parts, 1)
        found: tuple[Tensor, Tensor] = self.dense(*numbers, looked_up_BFC)
        return found

    def _looked_up(self, place: Tensor, rows_RC: Tensor, scale_RS: Tensor | None) -> Tensor:
        x = nn.functional.embedding(place, rows_RC).float()
        if scale_RS is None:
            return x
        scales = nn.functional.embedding(place, scale_RS).split(1, -1)
        return torch.cat([part * scale for part, scale in zip(x.split(self.dims, -1), scales, strict=True)], -1)


def _pooled(x_VC: Tensor, lengths_B: Tensor, mean: bool) -> Tensor:
    """Sums or means of each row's share of V; 0 of a row that has none."""
    ends_B = lengths_B.cumsum(0)
    # Which row a value is of: how many rows have ended before it.
    ended = torch.zeros_like(x_VC[:, 0], dtype=torch.int64)
    ended = torch.cat([ended, ended.new_zeros(1)]).index_add(0, ends_B, torch.ones_like(ends_B))
    of_V = ended[:-1].cumsum(0)
    summed_BC = x_VC.new_zeros(lengths_B.shape[0], x_VC.shape[1]).index_add(0, of_V, x_VC)
    return summed_BC / lengths_B.clamp(min=1).unsqueeze(1) if mean else summed_BC


class DenseColumns(nn.Module):
    """The dense field of every set, side by side, [B, I] -> [B, C], by two products where the mixture has two a set.

    Args:
        fields: S of linear -> SiLU -> linear.
    """

    def __init__(self, fields: Any) -> None:
        super().__init__()
        self.fields = fields

    def forward(self, dense_BI: Tensor) -> Tensor:
        firsts, lasts = [field[0] for field in self.fields], [field[2] for field in self.fields]
        # Weights laid side by side: a runtime does it once, when it reads the graph.
        first, first_bias = torch.cat([one.weight for one in firsts]), torch.cat([one.bias for one in firsts])
        hidden = nn.functional.silu(nn.functional.linear(dense_BI, first, first_bias))
        last, last_bias = torch.block_diag(*(one.weight for one in lasts)), torch.cat([one.bias for one in lasts])
        return nn.functional.linear(hidden, last, last_bias)


def in_float32(mixture: ExpertMixture) -> ExpertMixture:
    """The mixture without autocast, its weights shared: runtimes for CPUs have no bfloat16 products. Nor does a graph leave experts out by
    what rows chose."""
    copied = copy.copy(mixture)
    copied._modules = dict(mixture._modules)
    copied.bf16, copied.skips = False, False
    return copied


class WithWeights(nn.Module):
    """A module that takes its weights as arguments, behind its own: a graph of it is one of any weights.

    Attributes:
        weights: name in `known` -> the weight, of each of the module's that is there.

    Args:
        module: what is called.
        known: the weights' names.
    """

    def __init__(self, module: nn.Module, known: Mapping[str, Tensor]) -> None:
        super().__init__()
        names = {id(tensor): name for name, tensor in known.items()}
        own = [*module.named_parameters(), *module.named_buffers()]
        self._places = {place: names[id(tensor)] for place, tensor in own if id(tensor) in names}
        self.weights = {name: known[name] for name in self._places.values()}
        self.module = module

    def forward(self, *given: Tensor) -> tuple[Tensor, Tensor]:
        own = len(given) - len(self.weights)
        weights = dict(zip(self.weights, given[own:], strict=True))
        taken = {place: weights[name] for place, name in self._places.items()}
        found: tuple[Tensor, Tensor] = torch.func.functional_call(self.module, taken, given[:own])
        return found
