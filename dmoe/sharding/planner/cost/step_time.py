"""What a training step takes on a cluster, tables and dense part, from a plan; and what that costs.

The tables' time is TorchRec's estimate for the slowest rank. The dense part's is FLOPs over the device's speed, plus what the backward
pass cannot hide of the gradients' exchange. Nothing overlaps the tables' time here, so a real step may be faster. No figure has been
compared with a GPU.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from dmoe.model.sizes import human
from dmoe.sharding.plan.plan_file import room_on
from dmoe.sharding.planner.cluster import Cluster
from dmoe.sharding.planner.cost.cost_model import bytes_of
from dmoe.sharding.planner.planning_model import Described

PASSES = 3
"""A training step in forward passes: the backward one takes about twice the forward's FLOPs."""
FP32_SHARE = 1 / 15
"""Of a GPU's bf16 speed: outside its tensor cores, as PyTorch multiplies float32 (data sheets: A100 19.5 of 312, H100 67 of 989)."""
ASSUMED = (
    "Estimates, not compared with a GPU: tables by TorchRec's formulas for the slowest rank, the dense part by its FLOPs at 35 % of the"
    " data sheet's bf16 speed (fp32 a fifteenth of that), nothing overlapped. Prices are assumptions: usd_an_hour of a cluster file sets"
    " your own."
)


@dataclass(frozen=True)
class Step:
    """A predicted training step.

    Attributes:
        tables_ms, dense_ms: of the slowest rank; their sum is the step.
        memory: bytes that the fullest rank's tables take in the memory where they live by default, of `room` that there are for tables.
        host_memory: bytes that the fullest rank keeps in its host's memory beside it.
        usd_an_hour: of the whole cluster.
    """

    ranks: int
    batch_size: int
    tables_ms: float
    dense_ms: float
    memory: int
    room: float
    host_memory: int
    usd_an_hour: float

    @property
    def ms(self) -> float:
        return self.tables_ms + self.dense_ms

    @property
    def samples_per_second(self) -> float:
        return self.batch_size / self.ms * 1000

    @property
    def usd_a_billion(self) -> float:
        """Of 1e9 samples."""
        return 1e9 / self.samples_per_second / 3600 * self.usd_an_hour

    @property
    def headroom(self) -> float:
        """Share of the room for tables that the fullest rank leaves free."""
        return 1 - self.memory / self.room if self.room else 0.0

    def as_json(self) -> dict[str, Any]:
        derived = ("ms", "samples_per_second", "usd_a_billion", "headroom")
        return asdict(self) | {name: round(getattr(self, name), 6) for name in derived}


def step_of(model: Described, plan: Mapping[str, Any], cluster: Cluster) -> Step:
    """The step that a plan for this model and cluster predicts."""
    ranks, batch_size = plan["predicted"]["ranks"], model.config.train.batch_size
    rooms = room_on(plan, cluster)
    usable = [rank for rank in range(cluster.ranks) if rank not in cluster.without]
    fullest = max(usable, key=lambda rank: ranks[rank]["memory"] / rooms[rank] if rooms[rank] > 0 else 0.0)
    return Step(
        cluster.ranks,
        batch_size,
        plan["predicted"]["time_ms"],
        dense_ms(model, cluster),
        ranks[fullest]["memory"],
        rooms[fullest],
        max(rank["host_memory"] for rank in ranks),
        cluster.ranks * cluster.device.usd_an_hour,
    )


def dense_ms(model: Described, cluster: Cluster) -> float:
    """Milliseconds of the dense part: compute, and the gradients' all-reduce beyond the backward pass that hides it."""
    device, rows = cluster.device, -(-model.config.train.batch_size // cluster.ranks)
    slower = FP32_SHARE if device.kind == "cuda" and model.config.train.precision == "fp32" else 1.0
    forward = model.flops * rows / (device.flops * slower)
    # NCCL's rings share all of a host's links to the network.
    link = device.node_link if cluster.nodes == 1 else min(device.network * cluster.ranks_a_node, device.node_link)
    exchange = 2 * (cluster.ranks - 1) / cluster.ranks * model.dense_bytes / link
    return 1000 * (PASSES * forward + max(0.0, exchange - (PASSES - 1) * forward))


def table_bytes(model: Described) -> dict[str, int]:
    """Bytes of each table's weights and optimizer state, exact."""
    sizes = np.array([[table.rows, table.columns] for table in model.tables], np.float64)
    weights, state = bytes_of(sizes, model.config.optimizer.tables.kind)
    return {table.name: int(total) for table, total in zip(model.tables, weights + state, strict=True)}


def memory_of(cluster: Cluster, on_device: bool = False) -> float:
    """Bytes that a cluster has for tables and all else: its devices', and its hosts' too unless `on_device`."""
    on_gpu = cluster.device.kind == "cuda"
    host = cluster.device.ddr if on_gpu and not on_device else 0.0
    return sum(cluster.memory_on(rank) + host for rank in range(cluster.ranks) if rank not in cluster.without)


def shortage(model: Described, cluster: Cluster, on_device: bool = False) -> str:
    """What the tables need and what there is, in a few words."""
    where = "devices" if on_device and cluster.device.kind == "cuda" else "devices and hosts" if cluster.device.kind == "cuda" else "hosts"
    return (
        f"weights and state of the tables are {human(sum(table_bytes(model).values()))}, {cluster.name} has"
        f" {human(memory_of(cluster, on_device))} in its {where}"
    )
