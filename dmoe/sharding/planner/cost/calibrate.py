"""Compares a measured run with its plan: bytes held and sent, times, and the cluster constants that would match the measurement."""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dmoe.config.strict import Open, checked
from dmoe.errors import UserError
from dmoe.sharding.plan.plan_file import Count, Number, precision_of
from dmoe.sharding.plan.qcomm import BYTES
from dmoe.sharding.plan.report.plan_stats import Figures, figures_of
from dmoe.sharding.planner.cluster import Cluster
from dmoe.sharding.planner.cost.cost_model import Prediction, bytes_of, predict, shards_of
from dmoe.storage.documents import check_format, read_document

FORMAT, VERSION, MAX_BYTES = "dmoe-measured", 1, 256 << 20
AGAIN = "make one with dmoe plan calibrate"
ROUNDS = 8
KINDS = ("all_to_all", "reduce_scatter", "all_gather", "all_reduce")
SENT_BOUND = 0.02
"""Allowed relative error of bytes sent: the prediction ignores all-to-all splits, and assumes that ids are even over row shards."""


@dataclass(frozen=True)
class RankComparison:
    """One rank: pairs (predicted, measured) of bytes and of milliseconds.

    Attributes:
        sent: kind of collective -> pair; `all_reduce` covers gradients, including those of the dense part.
        others: bytes sent that do not depend on the plan: moments of the objective, metrics.
        lookup, exchange: milliseconds per step of lookups (with the optimizer), and of collectives of the same size without other work.
        memory: predicted: tables and buffers; measured: peak of the process above its memory at the start.
    """

    rank: int
    weights: tuple[int, int]
    state: tuple[int, int]
    sent: dict[str, tuple[float, float]]
    others: float
    lookup: tuple[float, float]
    exchange: tuple[float, float]
    memory: tuple[int, int]
    step_ms: float

    @property
    def sent_total(self) -> tuple[float, float]:
        return sum(pair[0] for pair in self.sent.values()), sum(pair[1] for pair in self.sent.values())


@dataclass(frozen=True)
class Calibration:
    """A measured run compared with its plan.

    Attributes:
        misplaced: descriptions of shards whose place or size differs from the plan; empty if all are exact.
        cluster: the plan's cluster, with the bandwidths that make the prediction match the measurement.
        after: the prediction with these bandwidths.
    """

    figures: Figures
    device: str
    steps: int
    ranks: tuple[RankComparison, ...]
    misplaced: tuple[str, ...]
    cluster: Cluster
    after: Prediction

    @property
    def worst_sent(self) -> float:
        """The largest relative error of a rank's bytes sent."""
        return max((abs(b / a - 1) for a, b in (rank.sent_total for rank in self.ranks) if a), default=0.0)


class _Shard(Open):
    table: str
    row: Count
    column: Count
    rows: Count
    columns: Count
    weights: Count
    state: Count


class _Rank(Open):
    rank: Count
    shards: list[_Shard]
    sent: dict[str, Number]
    step_ms: Number
    forward_lookup_ms: Number
    backward_lookup_ms: Number
    exchange_ms: Number
    peak_bytes: Number


class _Measured(Open):
    """The fields of a measurement that are read."""

    device: str
    steps: Count
    plan: dict[str, Any]
    ranks: list[_Rank]


def read_measurement(path: str) -> dict[str, Any]:
    """Reads what `dmoe.train.rehearsal.measure` wrote; see `compare`."""
    return read_document(path, MAX_BYTES, "measurement", FORMAT, VERSION, AGAIN, f"--measured {path}")


def compare(measured: Mapping[str, Any], where: str) -> Calibration:
    """Compares a measurement that `dmoe.train.rehearsal.measure` wrote with its plan.

    Raises:
        UserError: `measured` is not such a measurement.
    """
    check_format(measured, where, "measurement", FORMAT, VERSION, AGAIN)
    checked(_Measured.model_validate, measured, where, "; measure again")
    plan, told = measured["plan"], measured["ranks"]
    figures = figures_of(plan, where)
    prediction, cluster = figures.prediction, figures.cluster
    if [rank["rank"] for rank in told] != list(range(cluster.ranks)):
        raise UserError(f"{where}: ranks: expected one entry for each of {cluster.ranks} ranks, in order; measure again")
    kinds = sent_by_kind(plan["tables"], prediction, cluster, figures.comm_precision)
    kinds["all_reduce"] += 2 * (cluster.ranks - 1) / cluster.ranks * plan["model"].get("dense_bytes", 0)
    ranks = tuple(_rank(rank, told[rank.rank], kinds, prediction) for rank in figures.ranks)
    corrected, after = _corrected(plan, cluster, ranks)
    return Calibration(figures, measured["device"], measured["steps"], ranks, tuple(_misplaced(plan, told)), corrected, after)


def sent_by_kind(tables: Mapping[str, Any], prediction: Prediction, cluster: Cluster, comm_precision: str) -> dict[str, Any]:
    """Predicted bytes sent, [ranks] for each kind of collective.

    Row-wise tables use a reduce-scatter in the forward pass and an all-gather in the backward pass, over all ranks. Table-row-wise and grid
    tables use both within a host, for the batches of all hosts. Other sharded tables, and all ids, use all-to-all.
    """
    kinds = {kind: np.zeros(cluster.ranks) for kind in KINDS}
    for index, name in enumerate(prediction.tables):
        row = tables[name]
        sent = prediction.sent[index]
        if row["sharding_type"] == "data_parallel":
            kinds["all_reduce"] += sent
            continue
        reduced = np.zeros(cluster.ranks)
        hosts = {"row_wise": cluster.ranks - 1}.get(row["sharding_type"], (cluster.ranks_a_node - 1) * cluster.nodes)
        if row["sharding_type"] in ("row_wise", "table_row_wise", "grid_shard"):
            for shard in shards_of(row, cluster.ranks):
                reduced[shard["rank"]] += hosts * row["batch_size"] * shard["columns"] * BYTES[comm_precision]
        kinds["reduce_scatter"] += reduced
        kinds["all_gather"] += reduced
        kinds["all_to_all"] += sent - 2 * reduced
    return kinds


def _rank(told: Any, mine: Mapping[str, Any], kinds: Mapping[str, Any], prediction: Prediction) -> RankComparison:
    rank, parts = told.rank, prediction.parts
    weights, state = (sum(shard[what] for shard in mine["shards"]) for what in ("weights", "state"))
    return RankComparison(
        rank,
        (told.weights, weights),
        (told.state, state),
        {kind: (float(kinds[kind][rank]), float(mine["sent"].get(kind, 0.0))) for kind in KINDS},
        float(sum(count for kind, count in mine["sent"].items() if kind not in KINDS)),
        (float(parts["forward lookup"][rank] + parts["backward lookup"][rank]), mine["forward_lookup_ms"] + mine["backward_lookup_ms"]),
        (float(parts["forward exchange"][rank] + parts["backward exchange"][rank]), mine["exchange_ms"]),
        (told.memory, mine["peak_bytes"]),
        mine["step_ms"],
    )


def _misplaced(plan: Mapping[str, Any], told: list[dict[str, Any]]) -> Iterator[str]:
    """Describes each shard whose rectangle or bytes differ between the plan and the memory of the ranks."""
    planned = set()
    for name, row in plan["tables"].items():
        for shard in shards_of(row, plan["world_size"]):
            if shard["rows"] and shard["columns"]:
                weights, state = bytes_of(np.array([[shard["rows"], shard["columns"]]], np.float64), plan["optimizer"])
                place = (name, shard["row"], shard["column"], shard["rows"], shard["columns"], shard["rank"])
                planned.add((*place, int(weights[0]), int(state[0])))
    keys = ("table", "row", "column", "rows", "columns")
    held = {
        (*(shard[key] for key in keys), rank["rank"], shard["weights"], shard["state"])
        for rank in told
        for shard in rank["shards"]
        if shard["rows"] and shard["columns"]
    }
    for which, some in (("planned, not held", planned - held), ("held, not planned", held - planned)):
        for name, row_, column, rows, columns, rank, weights_, state_ in sorted(some):
            yield f"{which}: {name} [{row_}+{rows}, {column}+{columns}] on rank {rank}, {weights_:,} + {state_:,} bytes"


def _corrected(plan: Mapping[str, Any], cluster: Cluster, ranks: tuple[RankComparison, ...]) -> tuple[Cluster, Prediction]:
    """The cluster with the bandwidths that reproduce the measured times of the slowest ranks, and its prediction.

    Iterative, since each part of a prediction depends on several bandwidths. A part that took no time does not change its bandwidths.
    """
    measured = [max(getattr(rank, what)[1] for rank in ranks) for what in ("lookup", "exchange")]
    optimizer, precision = plan["optimizer"], precision_of(plan)
    device, memory = cluster.device, "hbm_bandwidth" if cluster.device.kind == "cuda" else "ddr_bandwidth"
    for _ in range(ROUNDS):
        predicted = predict(plan["tables"], optimizer, dataclasses.replace(cluster, device=device), precision)
        lookup, exchange = (said / seen if said > 0 and seen > 0 else 1.0 for said, seen in zip(slowest(predicted), measured, strict=True))
        changed = {memory: getattr(device, memory) * lookup, "node_link": device.node_link * exchange}
        if cluster.nodes > 1:
            changed["network"] = device.network * exchange
        if cluster.device.kind == "cuda":
            changed["host_link"] = device.host_link * lookup
        device = dataclasses.replace(device, **changed)
    corrected = dataclasses.replace(cluster, device=dataclasses.replace(device, name=f"{cluster.device.name}-measured"))
    return corrected, predict(plan["tables"], optimizer, corrected, precision)


def slowest(prediction: Prediction) -> tuple[float, float]:
    """Milliseconds of lookups and of exchange, each on the rank where it takes longest."""
    parts = prediction.parts
    lookup, exchange = (parts[f"forward {what}"] + parts[f"backward {what}"] for what in ("lookup", "exchange"))
    return float(lookup.max()), float(exchange.max())
