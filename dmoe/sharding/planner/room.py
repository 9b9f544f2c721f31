"""Memory of each rank that is left for tables, after the dense part, ids and reserve."""

import contextlib
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from torchrec.distributed.planner.storage_reservations import HeuristicalStorageReservation
from torchrec.distributed.planner.types import PlannerError, Topology

from dmoe.errors import UserError
from dmoe.model.budget.sizes import human
from dmoe.model.embedding.tables import Table
from dmoe.sharding.plan.sharders import sharders
from dmoe.sharding.planner.cluster import Cluster
from dmoe.sharding.planner.constraints import Rule
from dmoe.sharding.planner.cost.enumerator import constraint_of
from dmoe.sharding.planner.cost.lookup import MetaTable, meta_module
from dmoe.sharding.planner.search.partitioner import Room

RESERVED = 0.15
"""Share of GPU memory that is kept free, TorchRec's default; memory for the dense part and id buffers is reserved in addition."""


class DoesNotFit(UserError):
    """No plan fits. `room` and `needed` are bytes over all ranks; the message says what to do."""

    def __init__(self, message: str, room: float, needed: float) -> None:
        super().__init__(message)
        self.room, self.needed = room, needed


def room_of(tables: Sequence[Table], rules: dict[str, Rule], cluster: Cluster, topology: Topology, dense_bytes: int) -> Room:
    """The memory for tables that TorchRec's heuristic reservation leaves on each rank; -1 on excluded ranks, so that no shard fits.

    The topology has equal ranks: with unequal ranks, TorchRec's enumerator would shard rows in proportion to memory.
    """
    named = [(f"table{number}", rules[table.name]) for number, table in enumerate(tables)]
    # The reservation depends on the number of ids of a table, not on its size.
    module = meta_module([MetaTable(name, 1, 4, rule.lookup) for name, rule in named], "sgd")
    constraints = {name: constraint_of(rule.lookup, rule.batch_size) for name, rule in named}
    batch = max(rule.batch_size for rule in rules.values())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        reservation = HeuristicalStorageReservation(RESERVED, dense_tensor_estimate=6 * dense_bytes + 1)
    storage = []
    with contextlib.suppress(PlannerError):
        storage = [device.storage for device in reservation.reserve(topology, batch, module, sharders(), constraints).devices]
    # TorchRec raises if no GPU memory is left, but not if no CPU memory is left.
    if not storage or (cluster.device.kind == "cpu" and min(one.ddr for one in storage) <= 0):
        raise DoesNotFit(
            f"sharding: the dense part ({human(6 * dense_bytes)} with gradients and state) and the ids of {batch:,} rows a rank leave no"
            f" memory for tables on {cluster.name}; use a smaller train.batch_size, smaller experts, or devices with more memory",
            0.0,
            1.0,
        )
    hbm, ddr = (np.array([float(getattr(one, name)) for one in storage]) for name in ("hbm", "ddr"))
    for rank, size in cluster.memory_of:
        # RESERVED applies to device memory only.
        if cluster.device.kind == "cuda":
            hbm[rank] += (1 - RESERVED) * (size - cluster.memory)
        else:
            ddr[rank] += size - cluster.memory
    hbm[list(cluster.without)] = ddr[list(cluster.without)] = -1
    left = hbm if cluster.device.kind == "cuda" else ddr
    if small := [rank for rank, _ in cluster.memory_of if left[rank] < 0 and rank not in cluster.without]:
        raise DoesNotFit(f"sharding: rank {small[0]} of {cluster.name} has no memory for the dense part and ids (memory_of)", 0.0, 1.0)
    return Room(cluster.nodes, cluster.ranks_a_node, hbm, ddr)


def kept_room(room: Room, cluster: Cluster) -> dict[str, Any]:
    """Bytes for tables on a rank with default memory, and `of`: rank -> bytes for ranks with other memory."""
    by_rank = room.hbm if cluster.device.kind == "cuda" else room.ddr
    unequal = {rank for rank, _ in cluster.memory_of} | set(cluster.without)
    equal = next((rank for rank in range(cluster.ranks) if rank not in unequal), next(r for r in range(cluster.ranks) if by_rank[r] >= 0))
    kept: dict[str, Any] = {"hbm": float(room.hbm[equal]), "ddr": float(room.ddr[equal])}
    if of := {str(rank): float(by_rank[rank]) for rank, _ in cluster.memory_of if rank not in cluster.without}:
        kept["of"] = of
    return kept
