"""Finds the tables of any TorchRec model, and the sharding options of each."""

import fnmatch
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from torch import nn
from torchrec.distributed.planner import ParameterConstraints
from torchrec.distributed.types import ModuleSharder
from torchrec.modules.embedding_configs import BaseEmbeddingConfig
from torchrec.modules.embedding_modules import (
    EmbeddingBagCollection,
    EmbeddingBagCollectionInterface,
    EmbeddingCollection,
    EmbeddingCollectionInterface,
)

from dmoe.errors import UserError, nearest
from dmoe.model.embedding.tables import Section, Table
from dmoe.names import quoted
from dmoe.sharding.plan.sharders import CUT_ROWS
from dmoe.sharding.planner.cluster import Cluster
from dmoe.sharding.planner.constraints import MIN_COLUMNS, Rule, closed_types, partitions_of
from dmoe.sharding.planner.cost.lookup import NUMBER_BYTES, OPTIMIZERS, Lookup

KERNELS = ("dense", "fused", "fused_uvm", "fused_uvm_caching")
READ = {"sharding_types", "compute_kernels", "min_partition", "pooling_factors", "batch_sizes", "is_weighted", "feature_names"}
"""Fields of TorchRec's ParameterConstraints that the planner uses."""
PASSED_ON = {"cache_params", "enforce_hbm", "stochastic_rounding", "bounds_check_mode", "output_dtype"}
"""Fields that are passed to the kernels unchanged, and do not affect the prediction."""


@dataclass(frozen=True)
class Found:
    """A table of a model: `parameter` belongs to the collection at `path`.

    Attributes:
        optimizer: a key of OPTIMIZERS; empty if the parameter has no optimizer from `apply_optimizer_in_backward`.
    """

    path: str
    parameter: str
    size: tuple[int, int]
    features: tuple[str, ...]
    pooled: bool
    weighted: bool
    data_type: str
    optimizer: str
    module: nn.Module

    @property
    def label(self) -> str:
        return f"{self.path}.{self.parameter}" if self.path else self.parameter


def tables_in(module: nn.Module) -> dict[str, Found]:
    """The tables of every EmbeddingBagCollection and EmbeddingCollection. A table has its name in the collection; if two tables have the
    same name, the path of the collection is put before it.

    Raises:
        UserError: no table; another kind of collection; a data type other than float32 or float16; an unsupported optimizer.
    """
    found: list[Found] = []
    queue = [("", module)]
    while queue:
        path, one = queue.pop(0)
        if type(one) in (EmbeddingBagCollection, EmbeddingCollection):
            found += _tables_of(path, one)
        elif isinstance(one, EmbeddingBagCollectionInterface | EmbeddingCollectionInterface):
            where = path or "the module"
            raise UserError(f"{where}: a {type(one).__name__}; dmoe.Planner plans EmbeddingBagCollection and EmbeddingCollection")
        else:
            queue += [(f"{path}.{name}" if path else name, child) for name, child in one.named_children()]
    if not found:
        raise UserError(f"{type(module).__name__}: no EmbeddingBagCollection or EmbeddingCollection in it: nothing to plan")
    times = Counter(one.parameter for one in found)
    return {one.parameter if times[one.parameter] == 1 else one.label: one for one in found}


def _tables_of(path: str, module: Any) -> list[Found]:
    pooled = isinstance(module, EmbeddingBagCollection)
    configs: Sequence[BaseEmbeddingConfig] = module.embedding_bag_configs() if pooled else module.embedding_configs()
    held = dict((module.embedding_bags if pooled else module.embeddings).named_children())
    tables = []
    for config in configs:
        where = f"{path}.{config.name}".lstrip(".")
        if config.data_type.name not in NUMBER_BYTES:
            raise UserError(f"{where}: its numbers are {config.data_type.name}, plans are made for {' and '.join(NUMBER_BYTES)}")
        tables.append(
            Found(
                path,
                config.name,
                (config.num_embeddings, config.embedding_dim),
                tuple(config.feature_names),
                pooled,
                pooled and module.is_weighted(),
                config.data_type.name,
                _optimizer_of(held[config.name].weight, where),
                module,
            )
        )
    return tables


def _optimizer_of(weight: nn.Parameter, where: str) -> str:
    classes = getattr(weight, "_optimizer_classes", None) or ()
    for kind in classes:
        # TorchRec has optimizer classes of the same names, which select its fused kernels.
        name = {"Adagrad": "adagrad", "RowWiseAdagrad": "rowwise_adagrad", "SGD": "sgd", "Adam": "adam"}.get(kind.__name__)
        if name is None or len(classes) > 1:
            raise UserError(f"{where}: trained by {kind.__name__}; plans know {', '.join(OPTIMIZERS)}, one a table")
        return name
    return ""


def rules_in(
    found: Mapping[str, Found],
    constraints: Mapping[str, ParameterConstraints],
    sharders: Sequence[ModuleSharder[nn.Module]],
    cluster: Cluster,
    batch_size: int,
    optimizer: str,
) -> tuple[list[Table], dict[str, Rule], dict[str, dict[str, Any]]]:
    """The tables, their rules by table name, and the constraint fields that are passed to the kernels unchanged, by table name.

    Args:
        constraints: by table name, by the table's name in its collection, or by a pattern; a later entry replaces an earlier one.
        batch_size: rows of the global batch.

    Raises:
        UserError: an impossible constraint; the message names it and the reason.
    """
    asked: dict[str, tuple[str, ParameterConstraints]] = {}
    for pattern, constraint in constraints.items():
        matching = [name for name, one in found.items() if pattern in (name, one.parameter)]
        matching = matching or [name for name in found if fnmatch.fnmatchcase(name, pattern)]
        if not matching:
            raise UserError(f"constraints: no table {quoted(pattern)}{nearest(pattern, found)}")
        asked.update({name: (f"constraints[{quoted(pattern)}]", constraint) for name in matching})
    by_type = {one.module_type: one for one in sharders}
    tables, rules, extras = [], {}, {}
    for name, one in found.items():
        where, constraint = asked.get(name, ("", ParameterConstraints()))
        rows, columns = one.size
        table = Table(name, one.parameter, ", ".join(one.features), rows, (Section(0, 0, columns),))
        if table.columns != columns:
            raise UserError(f"{one.label}: its dim is {columns}; FBGEMM's kernels want a multiple of 4")
        sharder = by_type.get(type(one.module))
        if sharder is None:
            raise UserError(f"{one.label}: none of the sharders is for {type(one.module).__name__}")
        rules[name] = _rule(table, one, constraint, where, sharder, cluster, batch_size, optimizer)
        extras[name] = {key: getattr(constraint, key) for key in PASSED_ON if getattr(constraint, key) is not None}
        tables.append(table)
    return tables, rules, extras


def _rule(
    table: Table,
    found: Found,
    constraint: ParameterConstraints,
    where: str,
    sharder: ModuleSharder[nn.Module],
    cluster: Cluster,
    batch_size: int,
    optimizer: str,
) -> Rule:
    for one in fields(constraint):
        given = getattr(constraint, one.name)
        if one.name not in READ | PASSED_ON and given != one.default:
            raise UserError(f"{where}: {one.name} is not read by dmoe.Planner")
    kind = cluster.device.kind
    types = list(constraint.sharding_types or sharder.sharding_types(kind))
    # Row-wise Adagrad keeps one state per row and column shard, so column shards change the optimizer: only if requested.
    reasons = {one: "row-wise Adagrad keeps one state a row" for one in CUT_ROWS if optimizer == "rowwise_adagrad"}
    if not found.pooled and kind == "cpu":
        # On CPUs its lookup wrongly sums embeddings that must stay separate (torchrec issue 1255).
        if "data_parallel" in (constraint.sharding_types or ()):
            raise UserError(f"{where}: data_parallel; TorchRec runs it for an EmbeddingCollection on GPUs only: leave it out")
        reasons["data_parallel"] = "TorchRec cannot run it for an EmbeddingCollection on CPUs"
    reasons |= closed_types(cluster)
    if constraint.sharding_types and (closed := [one for one in types if one in closed_types(cluster)]):
        raise UserError(f"{where}: sharding type {closed[0]} cannot be: {reasons[closed[0]]}")
    if not constraint.sharding_types:
        types = [one for one in types if one not in reasons]
        if cluster.ranks == 1:
            types = ["table_wise"]
    possible = sorted({kernel for one in types for kernel in sharder.compute_kernels(one, kind)} & set(KERNELS))
    if unknown := [one for one in constraint.compute_kernels or () if one not in possible]:
        raise UserError(f"{where}: compute kernel {unknown[0]}; for {', '.join(types)} on {kind} it can be {', '.join(possible)}")
    # TorchRec's value is a lower bound.
    widths = partitions_of(table, constraint.min_partition or MIN_COLUMNS)
    lengths = tuple(float(one) for one in constraint.pooling_factors)
    if len(lengths) == 1:
        lengths *= len(found.features)
    if len(lengths) != len(found.features) or min(lengths) <= 0:
        raise UserError(f"{where}: pooling_factors: expected a positive number for each of {', '.join(found.features)}")
    batches = constraint.batch_sizes or [-(-batch_size // cluster.ranks)]
    if len(set(batches)) > 1 or batches[0] < 1:
        raise UserError(f"{where}: batch_sizes: dmoe.Planner takes one size for all features of a table, at least 1")
    return Rule(
        tuple(types),
        tuple(constraint.compute_kernels) if constraint.compute_kernels else None,
        widths,
        None,
        batches[0],
        Lookup(lengths, found.pooled, found.weighted or constraint.is_weighted, found.data_type),
        tuple(sorted((key, reason) for key, reason in reasons.items() if key not in types)),
    )
