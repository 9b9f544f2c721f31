"""Figures of a plan by rank and by table, used to show, compare and check plans.

They are predicted from the shards in the plan file, so they include edits by hand. The figures stored in the file do not.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from dmoe.errors import UserError
from dmoe.sharding.plan.plan_file import check_plan, precision_of, room_on
from dmoe.sharding.planner.cluster import Cluster
from dmoe.sharding.planner.cost.cost_model import Prediction, predict


@dataclass(frozen=True)
class RankFigures:
    """One rank: bytes, and milliseconds per step.

    Attributes:
        memory: bytes of tables (weights, state, buffers) in the memory that holds tables by default (HBM on GPUs).
        reserved: bytes reserved in this memory: the dense part with gradients and state, ids, and 15 % on GPUs.
        free: remaining bytes; negative if the plan does not fit.
        host, host_free: used and free bytes of host memory, for UVM tables; both 0 on CPU clusters, where `memory` is host memory.
        tables: number of tables with a shard on this rank.
    """

    rank: int
    weights: int
    state: int
    memory: int
    reserved: int
    free: int
    host: int
    host_free: int
    lookups: float
    lookup_share: float
    sent: int
    time_ms: float
    tables: int


@dataclass(frozen=True)
class TableFigures:
    """One table. `weights`, `state`, `memory` and `sent` are bytes over all ranks; a data-parallel table counts once in the first two.

    `time_ms` is the maximum time on any rank, per step. `decided` and `tried` are the planner's explanation (`planner/explain.py`), empty
    if it was not saved. `use` are the lookup statistics of the data set (`planner/cost/table_use.py`).
    """

    name: str
    rows: int
    columns: int
    weights: int
    state: int
    memory: int
    sent: int
    time_ms: float
    sharding: str
    kernel: str
    ranks: tuple[int, ...]
    shards: int
    decided: str
    tried: tuple[dict[str, Any], ...]
    use: dict[str, Any] | None = None

    @property
    def size(self) -> int:
        return self.weights + self.state


@dataclass(frozen=True)
class Figures:
    """A plan with its predicted cost. `prediction` has the values of `ranks` for each table."""

    cluster: Cluster
    batch_size: int
    optimizer: str
    variant: str
    comm_precision: str
    prediction: Prediction
    ranks: tuple[RankFigures, ...]
    tables: tuple[TableFigures, ...]
    bound_ms: float = 0.0
    """Lower bound on the critical rank's time of any plan; 0 if the plan file has none."""

    @property
    def critical(self) -> int:
        return self.prediction.critical

    @property
    def time_ms(self) -> float:
        return self.prediction.critical_time

    @property
    def mean_ms(self) -> float:
        """Mean time of the ranks that may hold tables."""
        return sum(rank.time_ms for rank in self.ranks) / (len(self.ranks) - len(self.cluster.without))

    @property
    def imbalance(self) -> float:
        """Time of the critical rank divided by the mean: 1 if all ranks are equal, the number of ranks if one rank does all work."""
        return self.time_ms / self.mean_ms if self.mean_ms else 1.0

    @property
    def fullest(self) -> RankFigures:
        return min((rank for rank in self.ranks if rank.rank not in self.cluster.without), key=lambda rank: (rank.free, rank.rank))

    def headroom(self, rank: RankFigures) -> float:
        """Free share of the memory of a rank."""
        return rank.free / self.cluster.memory_on(rank.rank)

    def as_json(self) -> dict[str, Any]:
        """All figures except the matrices of tables by ranks."""
        return {
            "cluster": self.cluster.name,
            "world_size": self.cluster.ranks,
            "batch_size": self.batch_size,
            "optimizer": self.optimizer,
            "variant": self.variant,
            "comm_precision": self.comm_precision,
            "memory_a_rank": int(self.cluster.memory),
            **{key: value for key, value in self.cluster.as_json().items() if key in ("memory_of", "without")},
            "critical_rank": self.critical,
            "time_ms": round(self.time_ms, 6),
            "bound_ms": self.bound_ms,
            "mean_ms": round(self.mean_ms, 6),
            "imbalance": round(self.imbalance, 4),
            "least_headroom": round(self.headroom(self.fullest), 6),
            "fullest_rank": self.fullest.rank,
            "ranks": [asdict(rank) for rank in self.ranks],
            "tables": [asdict(table) for table in self.tables],
        }


def figures_of(plan: Mapping[str, Any], where: str) -> Figures:
    """Predicts the cost of the shards in a plan file.

    Args:
        plan: the plan from `read_plan`.
        where: path of the file, for messages.

    Raises:
        UserError: the file does not contain the memory available to tables (`room`).
    """
    cluster = check_plan(plan, where)
    if plan.get("room") is None:
        raise UserError(f"{where}: room: expected bytes of hbm and ddr a rank; plan again")
    precision = precision_of(plan)
    prediction = predict(plan["tables"], plan["optimizer"], cluster, precision)
    return Figures(
        cluster,
        plan["batch_size"],
        plan["optimizer"],
        str(plan["model"].get("variant", "")),
        precision,
        prediction,
        tuple(_ranks(prediction, cluster, room_on(plan, cluster), float(plan["room"]["ddr"]))),
        tuple(_table(plan["tables"][name], name, index, prediction, cluster) for index, name in enumerate(prediction.tables)),
        (plan.get("predicted") or {}).get("bound_ms", 0.0),
    )


def _ranks(prediction: Prediction, cluster: Cluster, room: list[float], host_room: float) -> list[RankFigures]:
    holds = (prediction.memory + prediction.host > 0).sum(0)
    on_gpu = cluster.device.kind == "cuda"
    return [
        RankFigures(
            host=(host := row.pop("host_memory")),
            host_free=int(host_room - host) if on_gpu else 0,
            **row,
            reserved=int(cluster.memory_on(rank) - room[rank]),
            free=int(room[rank] - row["memory"]),
            tables=int(holds[rank]),
        )
        for rank, row in enumerate(prediction.rank_rows())
    ]


def _table(row: Mapping[str, Any], name: str, index: int, prediction: Prediction, cluster: Cluster) -> TableFigures:
    rows, columns = row["size"]
    replicas = cluster.ranks if row["shards"] is None else 1
    shards = row["shards"] or ()
    held = list(range(cluster.ranks)) if row["shards"] is None else sorted({s["rank"] for s in shards if s["rows"]})
    return TableFigures(
        name,
        rows,
        columns,
        weights=int(prediction.weights[index].sum()) // replicas,
        state=int(prediction.state[index].sum()) // replicas,
        memory=int(prediction.memory[index].sum() + prediction.host[index].sum()),
        sent=int(prediction.sent[index].sum()),
        time_ms=round(float(np.max(prediction.time[index])), 6),
        sharding=row["sharding_type"],
        kernel=row["compute_kernel"],
        ranks=tuple(held),
        shards=len(shards),
        decided=str(row.get("decided", "")),
        tried=tuple(row.get("tried") or ()),
        use=row.get("use"),
    )
