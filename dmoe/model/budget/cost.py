"""Predicts the cost of a model before training: parameters, bytes, FLOPs, memory, size of a scorer.

Shapes: B rows, I dense features, F fields, K dims of an embedding.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import nn

from dmoe.config.config import Config
from dmoe.data.dataset.manifest import Manifest
from dmoe.model.batch_norm import NormalizedExperts
from dmoe.model.budget.sizes import human
from dmoe.model.build import Blueprint, build_model, make_blueprint
from dmoe.model.embedding.product_quantization import quantised_bytes
from dmoe.model.embedding.tables import SHARED
from dmoe.model.experts.dense import linear_flops
from dmoe.model.network import ExpertMixture

STATES_A_NUMBER = {"adagrad": 1, "rowwise_adagrad": 0, "sgd": 0, "adam": 2, "adamw": 2}
"""Numbers of optimizer state for each number of a parameter; row-wise Adagrad has one for each row instead."""
ROW_SCALE_BYTES = 4


@dataclass(frozen=True)
class SetCost:
    """The cost of a table set; in a light multi-embedding, that of the shared tables or of the private rows of an expert. `stored_bytes`
    is the memory in training: float32 with padding."""

    experts: tuple[int, ...]
    parameters: int
    stored_bytes: int
    rows: int
    dim: int
    feature_rows: tuple[int, ...] = ()


@dataclass(frozen=True)
class Cost:
    """The cost of a model. FLOPs are for the forward pass of one row, 2 per multiply-add; a training step takes about three times as many.

    Attributes:
        sets: the cost of each table set.
        table_state_bytes: size of the optimizer states of the tables.
        dense_parameters: number of parameters of experts, projections, gate and tower.
        dense_state_bytes: size of the optimizer states of these parameters.
        flops: part of the model -> FLOPs per row.
        lookups: table rows looked up per row of the batch: one per physical table, or the mean number of ids of a multi-valued feature.
        lookup_bytes: size of the pooled embeddings that these lookups return.
        saved_bytes: activations that autograd saves per row of the batch, measured on this model.
    """

    sets: tuple[SetCost, ...]
    table_state_bytes: int
    dense_parameters: int
    dense_state_bytes: int
    flops: dict[str, int]
    lookups: int
    lookup_bytes: int
    saved_bytes: int

    @property
    def embedding_parameters(self) -> int:
        return sum(one.parameters for one in self.sets)

    @property
    def embedding_bytes(self) -> int:
        return sum(one.stored_bytes for one in self.sets)

    @property
    def total_flops(self) -> int:
        return sum(self.flops.values())

    def training_bytes(self, batch_size: int, ranks: int) -> int:
        """Expected memory of a rank, if the tables were spread evenly: tables, dense part, gradients, optimizer states, activations."""
        tables = (self.embedding_bytes + self.table_state_bytes) / ranks
        dense = self.dense_parameters * 4 * 2 + self.dense_state_bytes
        return int(tables + dense + self.activation_bytes * -(-batch_size // ranks))

    @property
    def activation_bytes(self) -> int:
        """Activations per row of the batch in a training step. Looked-up embeddings count twice: value and gradient."""
        return self.saved_bytes + 2 * self.lookup_bytes

    def checkpoint_bytes(self, ranks: int) -> int:
        """Size of a rank's part of a checkpoint, if the tables were spread evenly. A thread writes it from a copy in memory."""
        dense = self.dense_parameters * 4 + self.dense_state_bytes
        return int((self.embedding_bytes + self.table_state_bytes) / ranks + dense)

    def scorer_bytes(self, rows: str) -> int:
        """Size of an exported scorer whose embedding rows are fp32, fp16, int8 (with one scale per row) or pq."""
        if rows == "pq":
            return sum(quantised_bytes(one.feature_rows, [one.dim]) for one in self.sets) + self.dense_parameters * 4
        width = {"fp32": 4, "fp16": 2, "int8": 1}[rows]
        scales = ROW_SCALE_BYTES * sum(one.rows for one in self.sets) if rows == "int8" else 0
        return self.embedding_parameters * width + scales + self.dense_parameters * 4


def cost_of(config: Config, manifest: Manifest) -> Cost:
    """The cost of the model that a config and a data set describe. No table is allocated."""
    blueprint = make_blueprint(config, manifest)
    return cost_of_parts(config, blueprint, build_model(config, blueprint).mixture)


def cost_of_parts(config: Config, blueprint: Blueprint, mixture: ExpertMixture) -> Cost:
    """Like `cost_of`, for a model that is already built."""
    table_kind, dense_kind = config.optimizer.tables.kind, config.optimizer.dense.kind
    sets = []
    for index in sorted({section.set_index for table in blueprint.tables for section in table.sections}):
        parts = [(table.rows, section) for table in blueprint.tables for section in table.sections if section.set_index == index]
        counts, dim = tuple(count for count, _ in parts), parts[0][1].dim
        rows = sum(counts)
        readers = tuple(expert for expert, read in enumerate(blueprint.set_of_expert) if index in (SHARED, read))
        sets.append(SetCost(readers, rows * dim, sum(count * section.stored * 4 for count, section in parts), rows, dim, counts))
    stored_bytes = sum(one.stored_bytes for one in sets)
    row_states = 4 * sum(table.rows for table in blueprint.tables) if table_kind == "rowwise_adagrad" else 0
    dense = sum(parameter.numel() for parameter in mixture.parameters())
    return Cost(
        sets=tuple(sets),
        table_state_bytes=stored_bytes * STATES_A_NUMBER[table_kind] + row_states,
        dense_parameters=dense,
        dense_state_bytes=dense * 4 * STATES_A_NUMBER[dense_kind],
        flops=flops_of(mixture, config.model.expert_dim),
        lookups=round(sum(table.mean_ids * len(table.keys) for table in blueprint.tables)),
        lookup_bytes=4 * sum(table.columns * len(table.keys) for table in blueprint.tables),
        saved_bytes=_saved_bytes(mixture, blueprint),
    )


def together(costs: Sequence[Cost]) -> Cost:
    """The total cost of an ensemble of models."""
    sets = tuple(one for cost in costs for one in cost.sets)
    flops = {part: sum(cost.flops.get(part, 0) for cost in costs) for part in costs[0].flops}
    numbers = {one.name: sum(getattr(cost, one.name) for cost in costs) for one in fields(Cost) if one.name not in ("sets", "flops")}
    return Cost(sets=sets, flops=flops, **numbers)


def flops_of(mixture: ExpertMixture, expert_dim: int) -> dict[str, int]:
    """FLOPs of the forward pass of one row, by part of the model. Experts report theirs by `flops()`."""
    count = len(mixture.experts)
    return {
        "experts": sum(int(expert.flops()) for expert in mixture.experts),  # type: ignore[operator,misc]
        "projections": sum(linear_flops(projection) for projection in mixture.projections),
        "gate": linear_flops(mixture.gate) + 2 * count * (1 if mixture.mix_logits else expert_dim),
        "tower": _tower_flops(mixture),
        "dense features": sum(linear_flops(field) for field in mixture.dense_fields),
    }


def _tower_flops(mixture: ExpertMixture) -> int:
    """FLOPs of the towers for the logit of the mixture. Training and evaluation may also compute the logit of each expert alone. These M
    towers are not counted here, and a scorer does not compute them."""
    if mixture.mix_logits and mixture.expert_towers:
        return linear_flops(mixture.expert_towers)
    assert mixture.tower is not None
    return linear_flops(mixture.tower) * (len(mixture.experts) if mixture.mix_logits else 1)


def _saved_bytes(mixture: nn.Module, blueprint: Blueprint) -> int:
    """Bytes per row that autograd saves, measured with two batch sizes, so that constant memory cancels out."""
    small, large = (_saved_by_batch(mixture, blueprint, rows) for rows in (8, 24))
    return (large - small) // 16


def _saved_by_batch(mixture: nn.Module, blueprint: Blueprint, rows: int) -> int:
    kept: dict[int, int] = {}

    def pack(x: torch.Tensor) -> torch.Tensor:
        storage = x.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        alive.append(x)
        return x

    alive: list[torch.Tensor] = []
    dense_BI = torch.zeros(rows, len(blueprint.dense))
    sets_BFK = [torch.zeros(rows, len(blueprint.features), dim, requires_grad=True) for dim in blueprint.set_dims]
    # A single rank may call this, and the zeros must not enter the running moments.
    normalized = [part for part in mixture.modules() if isinstance(part, NormalizedExperts)]
    for part in normalized:
        part.apart = True
    with torch.random.fork_rng(devices=[]), torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        mixture.train()(dense_BI, sets_BFK)
    for part in normalized:
        part.apart = False
    return sum(kept.values())


def in_one_line(cost: Cost, batch_size: int, ranks: int, copy_limit: float = 0.0) -> str:
    """The line that a run prints before it begins. A checkpoint of more than `copy_limit` bytes per rank is written without a copy."""
    training, copied = cost.training_bytes(batch_size, ranks), cost.checkpoint_bytes(ranks)
    writing = f" ({human(training + copied)} while a checkpoint is written from its copy)" if copied <= copy_limit else ""
    return (
        f"cost: {human(cost.embedding_bytes)} of tables in {len(cost.sets)} set(s) + {human(cost.table_state_bytes)} of their state,"
        f" {cost.total_flops / 1e6:.2f} MFLOP a row, {cost.lookups} lookups a row; about"
        f" {human(training)} a rank expected{writing}; a scorer of {human(cost.scorer_bytes('fp32'))}"
        f" (int8 {human(cost.scorer_bytes('int8'))})"
    )


def cost_rows(costs: dict[str, Cost], batch_size: int, ranks: int) -> list[list[str]]:
    """A header and one row of text for each variant."""
    head = ["variant", "embedding params", "dense params", "bytes per table set", "table state", "MFLOP/row", "lookups/row"]
    rows = [[*head, f"memory a rank ({ranks})", "scorer fp32", "fp16", "int8", "pq"]]
    for name, cost in costs.items():
        sets = " + ".join(human(one.stored_bytes) for one in cost.sets[:6]) + (" + ..." if len(cost.sets) > 6 else "")
        figures: list[Any] = [f"{cost.embedding_parameters:,}", f"{cost.dense_parameters:,}", sets, human(cost.table_state_bytes)]
        figures += [f"{cost.total_flops / 1e6:.3f}", cost.lookups, human(cost.training_bytes(batch_size, ranks))]
        rows.append([name, *map(str, figures), *(human(cost.scorer_bytes(kind)) for kind in ("fp32", "fp16", "int8", "pq"))])
    return rows
