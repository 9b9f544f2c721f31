"""From plain values to the data-parallel part of a model. No TorchRec."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from dmoe.config import ModelConfig
from dmoe.model.experts import build_expert
from dmoe.model.gate import make_gate
from dmoe.model.mixture import ExpertMixture
from dmoe.model.tower import Projection, Tower

DENSE_HIDDEN = 64


def assemble(
    settings: ModelConfig,
    fields: int,
    dense: int,
    experts: Sequence[tuple[str, dict[str, Any]]],
    set_dims: Sequence[int],
    set_of_expert: Sequence[int],
    bf16: bool = False,
) -> ExpertMixture:
    """Experts, projections, gate and tower, their weights drawn from torch's generator.

    Args:
        fields: categorical features that are looked up.
        dense: numeric features; where there are any, they are one more field of every set.
        experts: (kind, options) of each.
        set_dims: dim of each table set.
        set_of_expert: the table set that each expert reads.
    """
    fields += dense > 0
    dims = [set_dims[index] for index in set_of_expert]
    built: list[Any] = [
        build_expert(kind, num_fields=fields, field_dim=dim, **options) for (kind, options), dim in zip(experts, dims, strict=True)
    ]
    mixture = ExpertMixture(
        experts=built,
        projections=[Projection(int(e.out_dim), settings.expert_dim, settings.expert_norm, settings.activation) for e in built],
        gate=make_gate(settings.gate, [fields * dim for dim in dims], settings.expert_dim, set_of_expert),
        tower=Tower(settings.expert_dim, settings.tower.hidden, settings.activation, settings.tower.dropout),
        dense_fields=[_dense_field(dense, dim) for dim in set_dims] if dense else [],
        set_of_expert=set_of_expert,
        bf16=bf16,
    )
    mixture.apply(_initialize_linear)
    return mixture


def _initialize_linear(module: nn.Module) -> None:
    # Biases at 0: embeddings begin small, and PyTorch's random biases would drown them, so that an MLP expert stays at chance while
    # the gate turns away from it for good.
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _dense_field(dense: int, dim: int) -> nn.Module:
    return nn.Sequential(nn.Linear(dense, DENSE_HIDDEN), nn.SiLU(), nn.Linear(DENSE_HIDDEN, dim))
