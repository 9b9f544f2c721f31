"""Cost of a plan for each rank: time and buffers by TorchRec's estimators, exact bytes of weights and state, bytes sent to other ranks."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torchrec.distributed.planner.enumerators import get_partition_by_type
from torchrec.distributed.planner.types import Shard, ShardingOption

from dmoe.model.budget.cost import STATES_A_NUMBER
from dmoe.sharding.plan.qcomm import BYTES
from dmoe.sharding.planner.cluster import Cluster, topology_of
from dmoe.sharding.planner.cost.enumerator import Vector, constraint_of
from dmoe.sharding.planner.cost.estimators import DistinctShards, estimators
from dmoe.sharding.planner.cost.lookup import MetaTable, lookup_of, meta_module, tables_of

NUMBER, ID, LENGTH = 4, 8, 4
"""Bytes of a weight in memory, and of an id and a bag length when sent. The bytes of a sent embedding element are in `qcomm.BYTES`."""


@dataclass(frozen=True)
class Prediction:
    """Milliseconds per step and bytes, for T tables and R ranks.

    Attributes:
        tables: names of the T tables.
        time: [T, R] TorchRec's estimate of lookups and exchange, forward and backward.
        memory: [T, R] bytes of weights, state and buffers in the memory that holds tables by default (HBM on GPUs).
        host: [T, R] bytes in host memory on GPU clusters; 0 on CPU clusters.
        weights, state: [T, R] exact bytes.
        sent: [T, R] bytes that the rank sends to others in a step: ids, embeddings, gradients.
        lookups: [T, R] rows read in a step.
        parts: forward and backward, lookup and exchange -> [R] milliseconds.
    """

    tables: tuple[str, ...]
    time: Vector
    memory: Vector
    host: Vector
    weights: Vector
    state: Vector
    sent: Vector
    lookups: Vector
    parts: dict[str, Vector]

    @property
    def critical(self) -> int:
        return int(np.round(self.time.sum(0), 9).argmax())

    @property
    def critical_time(self) -> float:
        return float(self.time.sum(0).max())

    def rank_rows(self) -> list[dict[str, Any]]:
        """One row per rank: bytes held, and bytes sent, milliseconds and lookups per step."""
        sums = {name: getattr(self, name).sum(0) for name in ("memory", "host", "weights", "state", "time", "sent", "lookups")}
        total = max(float(sums["lookups"].sum()), 1e-9)
        return [
            {
                "rank": rank,
                "memory": int(sums["memory"][rank]),
                "host_memory": int(sums["host"][rank]),
                "weights": int(sums["weights"][rank]),
                "state": int(sums["state"][rank]),
                "lookups": round(float(sums["lookups"][rank]), 1),
                "lookup_share": round(float(sums["lookups"][rank]) / total, 6),
                "sent": int(sums["sent"][rank]),
                "time_ms": round(float(sums["time"][rank]), 6),
            }
            for rank in range(len(sums["time"]))
        ]


def predict(tables: Mapping[str, Mapping[str, Any]], optimizer: str, cluster: Cluster, comm_precision: str = "fp32") -> Prediction:
    """Predicts the cost of any plan.

    Args:
        tables: table name -> its entry in a plan file (`plan_file.py`).
        optimizer: optimizer of the tables.
        comm_precision: precision in which embeddings and their gradients are sent.
    """
    wire = BYTES[comm_precision]
    ranks = cluster.ranks
    on_gpu = cluster.device.kind == "cuda"
    names = tuple(tables)
    grids = {name: np.zeros((len(names), ranks)) for name in ("time", "memory", "host", "weights", "state", "sent", "lookups")}
    parts = {name: np.zeros(ranks) for name in ("forward lookup", "forward exchange", "backward lookup", "backward exchange")}
    placed = {name: shards_of(row, ranks) for name, row in tables.items()}
    estimated = _estimate(tables, placed, optimizer, cluster, wire)
    for index, name in enumerate(names):
        row, shards, costs = tables[name], placed[name], estimated[name]
        sizes = np.array([[shard["rows"], shard["columns"]] for shard in shards], np.float64)
        where = np.array([shard["rank"] for shard in shards])
        weights, state = bytes_of(sizes, optimizer, lookup_of(row).number_bytes)
        columns: dict[str, Any] = {
            "time": [one.perf.total for one in costs],
            "memory": [one.storage.hbm if on_gpu else one.storage.ddr for one in costs],
            "host": [one.storage.ddr if on_gpu else 0 for one in costs],
            "weights": weights,
            "state": state,
        }
        for what, values in columns.items():
            np.add.at(grids[what][index], where, values)
        for part, field in zip(parts, ("fwd_compute", "fwd_comms", "bwd_compute", "bwd_comms"), strict=True):
            np.add.at(parts[part], where, [getattr(one.perf, field) for one in costs])
        # Rows that are not in a cache are fetched before the lookup.
        np.add.at(parts["forward lookup"], where, [one.perf.prefetch_compute for one in costs])
        grids["sent"][index], grids["lookups"][index] = _traffic(row, sizes, where, cluster, wire)
    return Prediction(names, **grids, parts=parts)


def bytes_of(sizes: Vector, optimizer: str, number_bytes: int = NUMBER) -> tuple[Vector, Vector]:
    """Exact bytes of the weights and the optimizer state of n shards.

    Args:
        sizes: [n, 2] rows and columns.
        number_bytes: bytes of one weight.
    """
    numbers = sizes[:, 0] * sizes[:, 1]
    per_row = sizes[:, 0] * NUMBER * (optimizer == "rowwise_adagrad") * (sizes[:, 1] > 0)
    return numbers * number_bytes, numbers * NUMBER * STATES_A_NUMBER[optimizer] + per_row


def shards_of(row: Mapping[str, Any], ranks: int) -> list[dict[str, int]]:
    """The shards of a table. A data-parallel table, whose shards a plan file does not list, is complete on every rank."""
    if row["shards"] is None:
        rows, columns = row["size"]
        return [{"row": 0, "column": 0, "rows": rows, "columns": columns, "rank": rank} for rank in range(ranks)]
    return list(row["shards"])


def _estimate(
    tables: Mapping[str, Mapping[str, Any]], placed: Mapping[str, list[dict[str, int]]], optimizer: str, cluster: Cluster, wire: int
) -> dict[str, list[Shard]]:
    """The shards of each table with their costs. Tables with equal properties and equal shards are estimated once."""
    kinds: dict[Any, str] = {}
    of_table = {}
    for name, row in tables.items():
        cut = tuple((shard["row"], shard["column"], shard["rows"], shard["columns"]) for shard in placed[name])
        key = (tuple(row["size"]), row["sharding_type"], row["compute_kernel"], lookup_of(row), row["batch_size"], cut)
        of_table[name] = kinds.setdefault(key, name)
    firsts = list(kinds.values())
    asked = [
        MetaTable(f"table{number}", tables[name]["size"][0], tables[name]["size"][1], lookup_of(tables[name]))
        for number, name in enumerate(firsts)
    ]
    modules = tables_of(meta_module(asked, optimizer))
    constraints, options = {}, []
    for one, name in zip(asked, firsts, strict=True):
        row, (module, parameter) = tables[name], modules[one.name]
        constraints[one.name] = constraint_of(one.lookup, row["batch_size"])
        options.append(
            ShardingOption(
                name=one.name,
                tensor=parameter,
                module=("", module),
                input_lengths=list(one.lookup.ids),
                batch_size=row["batch_size"],
                sharding_type=row["sharding_type"],
                partition_by=get_partition_by_type(row["sharding_type"]),
                compute_kernel=row["compute_kernel"],
                shards=[Shard(size=[cut["rows"], cut["columns"]], offset=[cut["row"], cut["column"]]) for cut in placed[name]],
                is_pooled=one.lookup.pooled,
                cache_params=one.lookup.cache_params,
            )
        )
    distinct = DistinctShards(options, constraints)
    distinct.estimate(estimators(topology_of(cluster), constraints), wire)
    distinct.restore()
    shards = {name: list(option.shards) for name, option in zip(firsts, options, strict=True)}
    return {name: shards[first] for name, first in of_table.items()}


def _traffic(row: Mapping[str, Any], sizes: Vector, where: Any, cluster: Cluster, wire: int) -> tuple[Vector, Vector]:
    """Bytes sent to other ranks and rows read, [R] each. Assumes that ids are distributed evenly over row shards."""
    ranks, local, nodes = cluster.ranks, cluster.ranks_a_node, cluster.nodes
    batch, lookup, kind = row["batch_size"], lookup_of(row), row["sharding_type"]
    sent, lookups = np.zeros(ranks), np.zeros(ranks)
    if kind == "data_parallel":
        rows, columns = row["size"]
        # Ring all-reduce of the gradient of the whole table.
        traffic = 2 * (ranks - 1) / ranks * rows * columns * lookup.number_bytes
        return np.full(ranks, traffic), np.full(ranks, batch * lookup.ids_a_row)
    by_rows = kind in ("row_wise", "table_row_wise", "grid_shard")
    id_bytes = ID + NUMBER * lookup.weighted
    for (rows, columns), rank in zip(sizes, where, strict=True):
        share = rows / row["size"][0] if by_rows else 1.0
        # A row shard sends a partial sum for each pooled embedding; of unpooled embeddings, it sends only those that it holds.
        out = batch * columns * min(wire, lookup.number_bytes) * lookup.embeddings_a_row * (1.0 if lookup.pooled else share)
        ids = batch * (lookup.ids_a_row * share * id_bytes + LENGTH * len(lookup.ids))
        lookups[rank] += batch * ranks * lookup.ids_a_row * share
        others = np.arange(ranks) != rank
        sent[others] += ids
        if kind in ("table_row_wise", "grid_shard"):
            # Reduce-scatter within the host, then all-to-all with the same local rank of the other hosts; the reverse in backward.
            sent[rank] += 2 * (local - 1) * nodes * out + (nodes - 1) * out
            peers = (np.arange(ranks) % local == rank % local) & others
            sent[peers] += out
        elif kind == "row_wise" and lookup.pooled:
            sent[rank] += 2 * (ranks - 1) * out
        else:
            sent[rank] += (ranks - 1) * out
            sent[others] += out
    return sent, lookups
