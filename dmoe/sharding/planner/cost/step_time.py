"""Predicts time and cost of a training step from a plan: tables and dense part.

The time of the tables is TorchRec's estimate for the slowest rank. The time of the dense part is its FLOPs divided by the speed of the
device, plus the part of the gradient all-reduce that does not overlap with the backward pass. The time of the tables is assumed not to
overlap with anything, so a real step may be faster. No figure has been compared with a GPU.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from dmoe.model.budget.sizes import human
from dmoe.sharding.plan.plan_file import room_on
from dmoe.sharding.planner.cluster import Cluster
from dmoe.sharding.planner.cost.cost_model import bytes_of
from dmoe.sharding.planner.planning_model import Described

PASSES = 3
"""FLOPs of a training step in forward passes: the backward pass needs about twice the FLOPs of the forward pass."""
FP32_SHARE = 1 / 15
"""float32 speed as a share of bf16: PyTorch multiplies float32 without tensor cores (data sheets: A100 19.5 of 312, H100 67 of 989)."""
ASSUMED = (
    "Estimates, not compared with a GPU: tables by TorchRec's formulas for the slowest rank, the dense part by its FLOPs at 35 % of the"
    " data sheet's bf16 speed (fp32 a fifteenth of that), nothing overlapped. Prices are assumptions: usd_an_hour of a cluster file sets"
    " your own."
)


@dataclass(frozen=True)
class Step:
    """A predicted training step.

    Attributes:
        tables_ms, dense_ms: time of tables and dense part on the slowest rank; their sum is the step time.
        memory, room: bytes used by tables, and available to them, on the fullest rank, in the memory that holds tables by default.
        host_memory: maximum bytes that a rank uses in host memory in addition.
        usd_an_hour: price of the whole cluster.
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
        """Cost of 1e9 samples."""
        return 1e9 / self.samples_per_second / 3600 * self.usd_an_hour

    @property
    def headroom(self) -> float:
        """Free share of the room for tables on the fullest rank."""
        return 1 - self.memory / self.room if self.room else 0.0

    def as_json(self) -> dict[str, Any]:
        derived = ("ms", "samples_per_second", "usd_a_billion", "headroom")
        return asdict(self) | {name: round(getattr(self, name), 6) for name in derived}


def step_of(model: Described, plan: Mapping[str, Any], cluster: Cluster) -> Step:
    """The predicted step of a plan for this model and cluster."""
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
    """Milliseconds of the dense part: compute, and the part of the gradient all-reduce that the backward pass does not hide."""
    device, rows = cluster.device, -(-model.config.train.batch_size // cluster.ranks)
    slower = FP32_SHARE if device.kind == "cuda" and model.config.train.precision == "fp32" else 1.0
    forward = model.flops * rows / (device.flops * slower)
    # NCCL's rings use all network links of a host.
    link = device.node_link if cluster.nodes == 1 else min(device.network * cluster.ranks_a_node, device.node_link)
    exchange = 2 * (cluster.ranks - 1) / cluster.ranks * model.dense_bytes / link
    return 1000 * (PASSES * forward + max(0.0, exchange - (PASSES - 1) * forward))


def table_bytes(model: Described) -> dict[str, int]:
    """Exact bytes of the weights and optimizer state of each table."""
    sizes = np.array([[table.rows, table.columns] for table in model.tables], np.float64)
    weights, state = bytes_of(sizes, model.config.optimizer.tables.kind)
    return {table.name: int(total) for table, total in zip(model.tables, weights + state, strict=True)}


def memory_of(cluster: Cluster, on_device: bool = False) -> float:
    """Bytes of memory of all ranks that may hold tables: device memory, and host memory unless `on_device`."""
    on_gpu = cluster.device.kind == "cuda"
    host = cluster.device.ddr if on_gpu and not on_device else 0.0
    return sum(cluster.memory_on(rank) + host for rank in range(cluster.ranks) if rank not in cluster.without)


def shortage(model: Described, cluster: Cluster, on_device: bool = False) -> str:
    """A short text with the bytes that the tables need and the memory of the cluster."""
    where = "devices" if on_device and cluster.device.kind == "cuda" else "devices and hosts" if cluster.device.kind == "cuda" else "hosts"
    return (
        f"weights and state of the tables are {human(sum(table_bytes(model).values()))}, {cluster.name} has"
        f" {human(memory_of(cluster, on_device))} in its {where}"
    )
