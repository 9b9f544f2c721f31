"""What each table could be: TorchRec's enumerator and estimators, asked once for tables that are alike."""

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
from torchrec.distributed.planner.types import ShardingOption, Topology

from dmoe.alive import detail
from dmoe.model.tables import Table
from dmoe.sharding.plan.sharders import ALL_TYPES, CUT_ROWS, sharders
from dmoe.sharding.planner.constraints import Rule
from dmoe.sharding.planner.cost.estimators import DistinctShards, estimators
from dmoe.sharding.planner.cost.lookup import MetaTable, meta_module

ON_DEVICE, IN_HOST = ("dense", "fused"), ("dense", "fused", "fused_uvm_caching", "fused_uvm")
Vector = NDArray[np.float64]
TOGETHER = 64
"""Tables that TorchRec's enumerator is asked about at once: it makes an object a shard, and a thousand ranks have a thousand of them."""


@dataclass(frozen=True)
class Candidate:
    """A way to shard a table, with what every shard would cost.

    Attributes:
        sizes, offsets: [shards, 2], rows and columns, and the row and column where each shard begins.
        time: predicted milliseconds of a step that each shard takes on its rank (TorchRec's EmbeddingPerfEstimator).
        hbm, ddr: bytes of each shard, optimiser state and buffers included (TorchRec's EmbeddingStorageEstimator).
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
    def largest(self) -> float:
        return float(self.hbm.max())

    @cached_property
    def total_bytes(self) -> float:
        return float(self.hbm.sum() + self.ddr.sum())

    @cached_property
    def weighed_bytes(self) -> float:
        """What a price on memory is asked for: a byte in the host's memory counts as a hundredth of one on the device."""
        return float(self.hbm.sum() + 0.01 * self.ddr.sum())

    @property
    def label(self) -> str:
        cut = f" by {self.sizes[0][1]} columns" if self.sharding_type in CUT_ROWS else ""
        kernel = "" if self.kernel in ON_DEVICE else f" {self.kernel}"
        return f"{self.sharding_type}{cut}{kernel}"


Alike = tuple[int, int, tuple[int, ...], Rule]


def alike(table: Table, rule: Rule) -> Alike:
    """Tables with equal keys have equal candidates: an expert's tables in the separate layout differ by name alone."""
    return table.rows, table.columns, tuple(section.offset for section in table.sections), rule


def candidates_of(
    tables: Sequence[Table], rules: dict[str, Rule], optimizer: str, topology: Topology, in_host: bool, wire: int
) -> dict[Alike, list[Candidate]]:
    """The candidates of every kind of table.

    Args:
        optimizer: of the tables, which decides the bytes of its state.
        in_host: kernels that keep tables in the host's memory too, where a rule names none.
        wire: bytes of a looked-up number or its gradient between ranks.
    """
    kinds = {alike(table, rules[table.name]): table for table in tables}
    asked: list[tuple[Alike, MetaTable, ParameterConstraints]] = []
    for number, (key, table) in enumerate(kinds.items()):
        rule = rules[table.name]
        kernels = list(rule.kernels or (IN_HOST if in_host else ON_DEVICE))
        whole = [kind for kind in rule.types if kind not in CUT_ROWS]
        for width in (None, *rule.partitions):
            types = whole if width is None else [kind for kind in rule.types if kind in CUT_ROWS]
            # A column shard of the whole row is the table-wise plan by another name.
            if not types or (width == table.columns and (whole or len(rule.partitions) > 1)):
                continue
            name = f"table{number}_{width or 0}"
            asked.append((key, MetaTable(name, table.rows, table.columns, rule.lookup), constraint_of(rule, types, kernels, width)))
    found: dict[Alike, list[Candidate]] = {key: [] for key in kinds}
    for first in range(0, len(asked), TOGETHER):
        detail(f"candidates of table {first + 1:,} of {len(asked):,}")
        some = asked[first : first + TOGETHER]
        constraints = {one.name: constraint for _, one, constraint in some}
        enumerator = _OnceEnumerator(topology, 1, constraints, estimators(topology, constraints))
        enumerator.wire = wire
        key_of = {one.name: key for key, one, _ in some}
        for option in _sorted(_options(enumerator, meta_module([one for _, one, _ in some], optimizer))):
            found[key_of[option.name]].append(_candidate(option))
    return found


class _OnceEnumerator(EmbeddingEnumerator):
    """TorchRec's enumerator, with a batch size a table: it leaves `batch_sizes` of the constraints to the estimators, which want both."""

    wire: int

    def populate_estimates(self, sharding_options: list[ShardingOption]) -> None:
        for option in sharding_options:
            option.batch_size = self._constraints[option.name].batch_sizes[0]
        # Restored when `enumerate` is over: it ends with a deep copy of all shards, which nobody asks for.
        self.distinct = DistinctShards(sharding_options, self._constraints or {})
        self.distinct.estimate(self._estimators, self.wire)


def _options(enumerator: _OnceEnumerator, module: nn.Module) -> list[ShardingOption]:
    # Of a million small lists the collector would look through all, again and again.
    collects = gc.isenabled()
    gc.disable()
    try:
        options = list(enumerator.enumerate(module, sharders()))
        enumerator.distinct.restore()
    finally:
        if collects:
            gc.enable()
    return options


def constraint_of(rule: Rule, types: list[str], kernels: list[str], width: int | None) -> ParameterConstraints:
    """The rule in TorchRec's words."""
    return ParameterConstraints(
        sharding_types=types,
        compute_kernels=kernels,
        min_partition=width,
        pooling_factors=list(rule.lookup.ids),
        batch_sizes=[rule.batch_size] * len(rule.lookup.ids),
        is_weighted=rule.lookup.weighted,
        cache_params=rule.lookup.cache_params,
    )


def _sorted(options: list[ShardingOption]) -> list[ShardingOption]:
    # The enumerator walks sets of strings, whose order changes from process to process; a plan must not.
    return sorted(options, key=lambda one: (one.name, ALL_TYPES.index(one.sharding_type), IN_HOST.index(one.compute_kernel)))


def _candidate(option: ShardingOption) -> Candidate:
    shards = option.shards
    costs = {id(shard.perf): (shard.perf.total, float(shard.storage.hbm), float(shard.storage.ddr)) for shard in shards}
    time, hbm, ddr = np.array([costs[id(shard.perf)] for shard in shards]).T
    return Candidate(
        option.sharding_type,
        option.compute_kernel,
        _compact(np.array([shard.size for shard in shards])),
        _compact(np.array([shard.offset for shard in shards])),
        _compact(time),
        _compact(hbm),
        _compact(ddr),
    )


def _compact(values: NDArray[Any]) -> NDArray[Any]:
    """The same numbers, kept once where all shards have the same."""
    return np.broadcast_to(values[:1].copy(), values.shape) if (values == values[:1]).all() else values.copy()
