"""Enumerates the sharding candidates of each table with TorchRec's enumerator and estimators, once for all equal tables."""

import gc
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn
from torchrec.distributed.planner import ParameterConstraints
from torchrec.distributed.planner.enumerators import EmbeddingEnumerator
from torchrec.distributed.planner.types import Shard, ShardingOption, Topology

from dmoe.model.embedding.tables import Table
from dmoe.processes.alive import detail
from dmoe.sharding.plan.sharders import ALL_TYPES, CUT_ROWS, sharders
from dmoe.sharding.planner.constraints import Rule
from dmoe.sharding.planner.cost.estimators import DistinctShards, estimators
from dmoe.sharding.planner.cost.lookup import Lookup, MetaTable, meta_module

ON_DEVICE, IN_HOST = ("dense", "fused"), ("dense", "fused", "fused_uvm_caching", "fused_uvm")
Vector = NDArray[np.float64]
TOGETHER = 64
"""Number of tables per call of TorchRec's enumerator; limits memory, since it creates one object per shard."""


@dataclass(frozen=True)
class Candidate:
    """A way to shard a table, with the cost of each shard.

    Attributes:
        sizes, offsets: [shards, 2] rows and columns of each shard, and its first row and column.
        time: [shards] predicted milliseconds per step on the rank of the shard (TorchRec's EmbeddingPerfEstimator).
        hbm, ddr: [shards] bytes with optimizer state and buffers (TorchRec's EmbeddingStorageEstimator).
    """

    sharding_type: str
    kernel: str
    sizes: NDArray[np.int64]
    offsets: NDArray[np.int64]
    time: Vector
    hbm: Vector
    ddr: Vector

    @cached_property
    def total_time(self) -> float:
        return float(self.time.sum())

    @cached_property
    def longest(self) -> float:
        return float(self.time.max())

    @cached_property
    def needs(self) -> tuple[float, float]:
        """Bytes of all shards in device memory and in host memory."""
        return float(self.hbm.sum()), float(self.ddr.sum())

    @cached_property
    def largest(self) -> float:
        return float(self.hbm.max())

    @cached_property
    def total_bytes(self) -> float:
        return float(self.hbm.sum() + self.ddr.sum())

    @cached_property
    def weighed_bytes(self) -> float:
        """Bytes that a price on memory applies to: a byte of host memory counts as 0.01 bytes of device memory."""
        return float(self.hbm.sum() + 0.01 * self.ddr.sum())

    @property
    def label(self) -> str:
        cut = f" by {self.sizes[0][1]} columns" if self.sharding_type in CUT_ROWS else ""
        kernel = "" if self.kernel in ON_DEVICE else f" {self.kernel}"
        return f"{self.sharding_type}{cut}{kernel}"


Alike = tuple[int, int, tuple[int, ...], Rule]


def alike(table: Table, rule: Rule) -> Alike:
    """Key: tables with equal keys have equal candidates. For example, the experts' tables of a feature may differ only by name."""
    return table.rows, table.columns, tuple(section.offset for section in table.sections), rule


def candidates_of(
    tables: Sequence[Table], rules: dict[str, Rule], optimizer: str, topology: Topology, in_host: bool, wire: int
) -> dict[Alike, list[Candidate]]:
    """The candidates of each kind of table.

    Args:
        optimizer: optimizer of the tables, which determines the bytes of their state.
        in_host: if a rule names no kernels, also use kernels that keep tables in host memory.
        wire: bytes of a sent element of an embedding or its gradient.
    """
    kinds = {alike(table, rules[table.name]): table for table in tables}
    asked: list[tuple[Alike, MetaTable, ParameterConstraints]] = []
    for number, (key, table) in enumerate(kinds.items()):
        rule = rules[table.name]
        kernels = list(rule.kernels or (IN_HOST if in_host else ON_DEVICE))
        whole = [kind for kind in rule.types if kind not in CUT_ROWS]
        for width in (None, *rule.partitions):
            types = whole if width is None else [kind for kind in rule.types if kind in CUT_ROWS]
            # A column shard of the whole row is the same as table-wise.
            if not types or (width == table.columns and (whole or len(rule.partitions) > 1)):
                continue
            name = f"table{number}_{width or 0}"
            asked.append(
                (
                    key,
                    MetaTable(name, table.rows, table.columns, rule.lookup),
                    constraint_of(rule.lookup, rule.batch_size, types, kernels, width),
                )
            )
    found: dict[Alike, list[Candidate]] = {key: [] for key in kinds}
    key_of = {one.name: key for key, one, _ in asked}
    constraints = {one.name: constraint for _, one, constraint in asked}
    # Create the estimators once: each logs the whole topology.
    asked_estimators = estimators(topology, constraints)
    for first in range(0, len(asked), TOGETHER):
        detail(f"candidates of table {first + 1:,} of {len(asked):,}")
        enumerator = _OnceEnumerator(topology, 1, constraints, asked_estimators)
        enumerator.wire = wire
        for option, shards in _options(enumerator, meta_module([one for _, one, _ in asked[first : first + TOGETHER]], optimizer)):
            found[key_of[option.name]].append(_candidate(option, shards))
    return found


class _OnceEnumerator(EmbeddingEnumerator):
    """TorchRec's enumerator, with one batch size per table. TorchRec does not set it on the option, but the estimators need it there."""

    wire: int

    def populate_estimates(self, sharding_options: list[ShardingOption]) -> None:
        for option in sharding_options:
            option.batch_size = self._constraints[option.name].batch_sizes[0]
        self.distinct = DistinctShards(sharding_options, self._constraints or {})
        self.distinct.estimate(self._estimators, self.wire)
        # `enumerate` deep-copies its result at the end, which is not needed.
        sharding_options.clear()


def _options(enumerator: _OnceEnumerator, module: nn.Module) -> list[tuple[ShardingOption, list[Shard]]]:
    """Pairs (option with one estimated shard per size, all shards of the option)."""
    # The garbage collector would scan a million small lists again and again.
    collects = gc.isenabled()
    gc.disable()
    try:
        enumerator.enumerate(module, sharders())
        pairs = zip(enumerator.distinct.options, enumerator.distinct.every, strict=True)
        # The enumerator iterates over sets of strings, whose order differs between processes; a plan must not differ.
        return sorted(pairs, key=lambda pair: _order(pair[0]))
    finally:
        if collects:
            gc.enable()


def constraint_of(
    lookup: Lookup, batch_size: int, types: Sequence[str] = (), kernels: Sequence[str] = (), width: int | None = None
) -> ParameterConstraints:
    """TorchRec's ParameterConstraints for a table that is looked up so; without types and kernels, those that an estimate needs."""
    return ParameterConstraints(
        sharding_types=list(types),
        compute_kernels=list(kernels),
        min_partition=width,
        pooling_factors=list(lookup.ids),
        batch_sizes=[batch_size] * len(lookup.ids),
        is_weighted=lookup.weighted,
        cache_params=lookup.cache_params,
    )


def _order(option: ShardingOption) -> tuple[str, int, int]:
    return option.name, ALL_TYPES.index(option.sharding_type), IN_HOST.index(option.compute_kernel)


def _candidate(option: ShardingOption, shards: Sequence[Shard]) -> Candidate:
    """
    Args:
        option: has one estimated shard per size.
    """
    count = len(shards)
    if len(option.shards) == 1:
        sizes = np.broadcast_to(np.array([option.shards[0].size]), (count, 2))
        costs = np.broadcast_to(_costs(option.shards[0]), (3, count))
    else:
        sizes = np.array([shard.size for shard in shards])
        costs = np.empty((3, count))
        for one in option.shards:
            costs[:, (sizes == one.size).all(1)] = _costs(one)
    time, hbm, ddr = costs
    return Candidate(
        option.sharding_type,
        option.compute_kernel,
        _compact(sizes),
        _compact(np.array([shard.offset for shard in shards])),
        _compact(time),
        _compact(hbm),
        _compact(ddr),
    )


def _costs(shard: Shard) -> Vector:
    """[3, 1] of an estimated shard: time, bytes in device memory, bytes in host memory."""
    perf, storage = shard.perf, shard.storage
    assert perf is not None
    assert storage is not None
    return np.array([[perf.total], [storage.hbm], [storage.ddr]], np.float64)


def _compact(values: NDArray[Any]) -> NDArray[Any]:
    """The same array; if all shards have equal values, they are stored once."""
    if values.strides[0] == 0 or len(values) == 1:
        return values
    return np.broadcast_to(values[:1].copy(), values.shape) if (values == values[:1]).all() else values.copy()
