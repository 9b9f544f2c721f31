"""Builds the data-parallel part of a model from plain values. Does not import TorchRec."""

import os
from collections.abc import Sequence
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import nn

from dmoe.config.model_sections import ModelConfig
from dmoe.errors import UserError
from dmoe.model.batch_norm import NormalizedExperts
from dmoe.model.budget.sizes import human
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
    """Builds experts, projections, gate and tower. The initial weights are drawn from torch's default generator.

    Args:
        fields: number of categorical features that are looked up.
        dense: number of numeric features. If there are any, together they add one field to every table set.
        experts: (kind, options) of each expert.
        set_dims: dim of each table set.
        set_of_expert: the table set that each expert reads.
    """
    fields += dense > 0
    dims = [set_dims[index] for index in set_of_expert]
    built: list[Any] = [
        build_expert(kind, num_fields=fields, field_dim=dim, **options) for (kind, options), dim in zip(experts, dims, strict=True)
    ]
    own = settings.expert_tower == "own"
    tower = partial(Tower, settings.expert_dim, settings.tower.hidden, settings.activation, settings.tower.dropout)
    mixture = ExpertMixture(
        experts=built,
        projections=[Projection(int(e.out_dim), settings.expert_dim, settings.expert_norm, settings.activation) for e in built],
        gate=make_gate(
            settings.gate, [fields * dim for dim in dims], settings.expert_dim, set_of_expert, settings.gate_experts, settings.gate_gamma
        ),
        tower=None if settings.mixture == "logits" and own else tower(),
        dense_fields=[_dense_field(dense, dim) for dim in set_dims] if dense else [],
        set_of_expert=set_of_expert,
        bf16=bf16,
        expert_towers=[tower() for _ in built] if own else [],
        mix_logits=settings.mixture == "logits",
        norm=NormalizedExperts(len(built), settings.expert_dim, settings.activation) if settings.expert_norm == "batch" else None,
    )
    mixture.apply(_initialize_linear)
    return mixture


def outline(*arguments: Any, **named: Any) -> ExpertMixture:
    """Calls `assemble` with these arguments on the meta device: parameters have names and shapes, but take no memory.

    Raises:
        UserError: the size of a layer overflows.
    """
    try:
        with torch.device("meta"):
            return assemble(*arguments, **named)
    except RuntimeError as error:
        if "overflow" not in str(error).lower():
            raise
        raise UserError("model: a layer has more numbers than memory has addresses; make the experts or model.expert_dim smaller") from None


def check_memory(outlined: nn.Module) -> None:
    """Checks that a module of these shapes fits in the memory of this machine.

    Raises:
        UserError: parameters and buffers need more than the memory of the machine.
    """
    needed = sum(one.numel() * one.element_size() for one in chain(outlined.parameters(), outlined.buffers()))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > memory:
        raise UserError(
            f"model: its experts, gate and tower take {human(needed)}, this machine has {human(memory)}; make the experts or"
            " model.expert_dim smaller"
        )


def _initialize_linear(module: nn.Module) -> None:
    # Biases start at 0. Embeddings start small, so PyTorch's random biases would dominate them: an MLP expert would stay at chance, and
    # the gate would stop using it for good.
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _dense_field(dense: int, dim: int) -> nn.Module:
    return nn.Sequential(nn.Linear(dense, DENSE_HIDDEN), nn.SiLU(), nn.Linear(DENSE_HIDDEN, dim))
