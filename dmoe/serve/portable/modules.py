"""Modules for export: a whole scorer, and only its dense part. Inputs and outputs are tensors.

Shapes: B rows, F categorical features, I numeric features, S table sets, K dims of a set, C columns of all sets, V ids in the bags of all
rows, R rows of all features.
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
    """The part of a scorer that follows the tables.

    Attributes:
        inputs: names of the arguments, float32: `dense` [B, I], if the model has numeric features; `embeddings` [B, F, C], all sets side by
            side.

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
    """A scorer with its tables. It takes ids like `Scorer.logits`, and has the outputs of DensePart.

    Attributes:
        inputs: names of the first arguments: `dense` [B, I] float32, if the model has numeric features; `ids` [B, F] int64; for each
            multi-valued feature `NAME.values` [V] and `NAME.lengths` [B] int64.
        tables: names of the arguments after these: `rows` [R, C] and, for int8 rows, `scale` [R, S]. Tables are arguments so that the graph
            does not contain a copy of them: they may be larger than memory.
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
    """Sums or averages the values of each row; 0 for a row without values."""
    ends_B = lengths_B.cumsum(0)
    # The row of a value is the number of rows that end before it.
    ended = torch.zeros_like(x_VC[:, 0], dtype=torch.int64)
    ended = torch.cat([ended, ended.new_zeros(1)]).index_add(0, ends_B, torch.ones_like(ends_B))
    of_V = ended[:-1].cumsum(0)
    summed_BC = x_VC.new_zeros(lengths_B.shape[0], x_VC.shape[1]).index_add(0, of_V, x_VC)
    return summed_BC / lengths_B.clamp(min=1).unsqueeze(1) if mean else summed_BC


class DenseColumns(nn.Module):
    """The dense fields of all sets side by side, [B, I] -> [B, C], by two matrix products in total; the mixture has two for each set.

    Args:
        fields: S modules linear -> SiLU -> linear.
    """

    def __init__(self, fields: Any) -> None:
        super().__init__()
        self.fields = fields

    def forward(self, dense_BI: Tensor) -> Tensor:
        firsts, lasts = [field[0] for field in self.fields], [field[2] for field in self.fields]
        # A runtime concatenates the weights only once, when it loads the graph.
        first, first_bias = torch.cat([one.weight for one in firsts]), torch.cat([one.bias for one in firsts])
        hidden = nn.functional.silu(nn.functional.linear(dense_BI, first, first_bias))
        last, last_bias = torch.block_diag(*(one.weight for one in lasts)), torch.cat([one.bias for one in lasts])
        return nn.functional.linear(hidden, last, last_bias)


def in_float32(mixture: ExpertMixture) -> ExpertMixture:
    """A copy of the mixture with the same weights, without autocast, because CPU runtimes have no bfloat16 products, and without skipping
    experts that no row chose, because a graph has no such branches."""
    copied = copy.copy(mixture)
    copied._modules = dict(mixture._modules)
    copied.bf16, copied.skips = False, False
    return copied


class WithWeights(nn.Module):
    """Wraps a module so that its weights are further arguments, after its own ones. An exported graph is then valid for any weights.

    Args:
        module: the module to call.
        known: name -> weight; these weights become arguments.

    Attributes:
        weights: the entries of `known` that the module has.
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
