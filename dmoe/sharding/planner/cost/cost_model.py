"""What a plan will cost every rank: TorchRec's estimators for time and buffers, exact sums for weights and state, counts for the links."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torchrec.distributed.planner.enumerators import get_partition_by_type
from torchrec.distributed.planner.types import Shard, ShardingOption

from dmoe.sharding.plan.qcomm import BYTES
from dmoe.sharding.planner.cluster import Cluster, topology_of
from dmoe.sharding.planner.constraints import Rule
from dmoe.sharding.planner.cost.enumerator import Vector, constraint_of
from dmoe.sharding.planner.cost.estimators import DistinctShards, estimators
from dmoe.sharding.planner.cost.lookup import MetaTable, lookup_of, meta_module, tables_of

NUMBER, ID, LENGTH = 4, 8, 4
"""Bytes of a weight in memory, of an id and of a bag's length on the wire; a looked-up number there has those of `comm.BYTES`."""
STATES_A_NUMBER = {"adagrad": 1, "rowwise_adagrad": 0, "sgd": 0, "adam": 2}


@dataclass(frozen=True)
class Prediction:
    """Tables by ranks; milliseconds of a step, and bytes.

    Attributes:
        tables: names of the rows.
        time: [T, R] TorchRec's estimate of lookups and exchange, forward and backward.
        memory: [T, R] in the memory where tables live by default (HBM on GPUs): weights, state and buffers.
        host: [T, R] in the host's memory, where that is another one.
        weights, state: [T, R] exact.
        sent: [T, R] bytes that leave the rank for others in a step: ids, embeddings, gradients.
        lookups: [T, R] rows read in a step.
        parts: forward and backward, compute and exchange -> [R] milliseconds.
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


def predict(tables: Mapping[str, Mapping[str, Any]], optimizer: str, cluster: Cluster, comm_precision: str = "fp32") -> Prediction:
    """Predicts a plan, wherever it comes from.

    Args:
        tables: as a plan file keeps them (`kept.py`).
        optimizer: of the tables.
        comm_precision: in which looked-up embeddings and their gradients travel.
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
        # Rows that a cache lacks are fetched before the lookup.
        np.add.at(parts["forward lookup"], where, [one.perf.prefetch_compute for one in costs])
        grids["sent"][index], grids["lookups"][index] = _traffic(row, sizes, where, cluster, wire)
    return Prediction(names, **grids, parts=parts)


def bytes_of(sizes: Vector, optimizer: str, number_bytes: int = NUMBER) -> tuple[Vector, Vector]:
    """Exact bytes of weights and of optimizer state of shards [n, 2] of rows and columns; `number_bytes` of a weight."""
    numbers = sizes[:, 0] * sizes[:, 1]
    per_row = sizes[:, 0] * NUMBER * (optimizer == "rowwise_adagrad") * (sizes[:, 1] > 0)
    return numbers * number_bytes, numbers * NUMBER * STATES_A_NUMBER[optimizer] + per_row


def shards_of(row: Mapping[str, Any], ranks: int) -> list[dict[str, int]]:
    """A table's shards; a data-parallel one, of which a file lists none, is whole on every rank."""
    if row["shards"] is None:
        rows, columns = row["size"]
        return [{"row": 0, "column": 0, "rows": rows, "columns": columns, "rank": rank} for rank in range(ranks)]
    return list(row["shards"])


def _estimate(
    tables: Mapping[str, Mapping[str, Any]], placed: Mapping[str, list[dict[str, int]]], optimizer: str, cluster: Cluster, wire: int
) -> dict[str, list[Shard]]:
    """Every table's shards with their costs. Tables that are alike and cut alike are estimated once."""
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
        constraints[one.name] = constraint_of(Rule((), None, (), None, row["batch_size"], one.lookup), [], [], None)
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
    """Bytes sent to other ranks and rows read, [R] each. Ids are taken to fall evenly on row shards."""
    ranks, local, nodes = cluster.ranks, cluster.ranks_a_node, cluster.nodes
    batch, lookup, kind = row["batch_size"], lookup_of(row), row["sharding_type"]
    sent, lookups = np.zeros(ranks), np.zeros(ranks)
    if kind == "data_parallel":
        rows, columns = row["size"]
        # A ring's all-reduce of the whole table's gradient.
        traffic = 2 * (ranks - 1) / ranks * rows * columns * lookup.number_bytes
        return np.full(ranks, traffic), np.full(ranks, batch * lookup.ids_a_row)
    by_rows = kind in ("row_wise", "table_row_wise", "grid_shard")
    id_bytes = ID + NUMBER * lookup.weighted
    for (rows, columns), rank in zip(sizes, where, strict=True):
        share = rows / row["size"][0] if by_rows else 1.0
        # Row shards send a part of every sum, but only those single embeddings that they hold.
        out = batch * columns * min(wire, lookup.number_bytes) * lookup.embeddings_a_row * (1.0 if lookup.pooled else share)
        ids = batch * (lookup.ids_a_row * share * id_bytes + LENGTH * len(lookup.ids))
        lookups[rank] += batch * ranks * lookup.ids_a_row * share
        others = np.arange(ranks) != rank
        sent[others] += ids
        if kind in ("table_row_wise", "grid_shard"):
            # Within the host a reduce-scatter, then to the same place of the other hosts; backwards the other way round.
            sent[rank] += 2 * (local - 1) * nodes * out + (nodes - 1) * out
            peers = (np.arange(ranks) % local == rank % local) & others
            sent[peers] += out
        elif kind == "row_wise" and lookup.pooled:
            sent[rank] += 2 * (ranks - 1) * out
        else:
            sent[rank] += (ranks - 1) * out
            sent[others] += out
    return sent, lookups
