"""A plan's figures by rank and by table, predicted anew from its shards: what is shown, compared and checked.

The numbers that a plan file keeps are those of the day it was made. A shard that was moved by hand since then counts here.
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
    """One rank in a step. Bytes and milliseconds.

    Attributes:
        memory: what tables take in the memory that they live in by default (HBM on GPUs): weights, state, buffers.
        reserved: what the planner keeps free of tables there: the dense part with gradients and state, ids, and 15 % on GPUs.
        free: the rest; negative where the plan does not fit.
        host, host_free: of the host's memory, where tables by UVM live; 0 and 0 on CPU clusters, where `memory` is the host's.
        tables: how many have a shard here.
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

    `time_ms` is the most that it takes of any rank's step. `decided` and `tried` are what the planner kept (`why.py`), empty if it did not.
    `use` is what the data set's counts said (`planner/table_use.py`).
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
    """A plan with what it will cost. `prediction` has the same as `ranks`, table by table."""

    cluster: Cluster
    batch_size: int
    optimizer: str
    variant: str
    comm_precision: str
    prediction: Prediction
    ranks: tuple[RankFigures, ...]
    tables: tuple[TableFigures, ...]
    bound_ms: float = 0.0
    """That no plan's critical rank is under; 0 where the plan does not tell."""

    @property
    def critical(self) -> int:
        return self.prediction.critical

    @property
    def time_ms(self) -> float:
        return self.prediction.critical_time

    @property
    def mean_ms(self) -> float:
        """Of the ranks that may hold tables."""
        return sum(rank.time_ms for rank in self.ranks) / (len(self.ranks) - len(self.cluster.without))

    @property
    def imbalance(self) -> float:
        """The critical rank's time over the mean: 1 is even, the number of ranks is all on one."""
        return self.time_ms / self.mean_ms if self.mean_ms else 1.0

    @property
    def fullest(self) -> RankFigures:
        return min((rank for rank in self.ranks if rank.rank not in self.cluster.without), key=lambda rank: (rank.free, rank.rank))

    def headroom(self, rank: RankFigures) -> float:
        """Free share of a rank's memory."""
        return rank.free / self.cluster.memory_on(rank.rank)

    def as_json(self) -> dict[str, Any]:
        """Everything but the grids of tables by ranks."""
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
    """Predicts a plan file's shards.

    Args:
        plan: what `read_plan` returned.
        where: its file, for messages.

    Raises:
        UserError: the file lacks the room that its planner had.
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
    sums = {name: getattr(prediction, name).sum(0) for name in ("weights", "state", "memory", "host", "lookups", "sent", "time")}
    holds = (prediction.memory + prediction.host > 0).sum(0)
    all_lookups = max(float(sums["lookups"].sum()), 1e-9)
    on_gpu = cluster.device.kind == "cuda"
    return [
        RankFigures(
            rank,
            weights=int(sums["weights"][rank]),
            state=int(sums["state"][rank]),
            memory=int(sums["memory"][rank]),
            reserved=int(cluster.memory_on(rank) - room[rank]),
            free=int(room[rank] - sums["memory"][rank]),
            host=int(sums["host"][rank]),
            host_free=int(host_room - sums["host"][rank]) if on_gpu else 0,
            lookups=round(float(sums["lookups"][rank]), 1),
            lookup_share=round(float(sums["lookups"][rank]) / all_lookups, 6),
            sent=int(sums["sent"][rank]),
            time_ms=round(float(sums["time"][rank]), 6),
            tables=int(holds[rank]),
        )
        for rank in range(cluster.ranks)
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
