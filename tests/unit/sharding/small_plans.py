"""Plans written by hand, for tests that ask for one shape or another of them."""

from typing import Any

from dmoe.sharding.plan.plan_file import check_plan
from dmoe.sharding.planner.cluster import parse_cluster

Shard = tuple[int, int, int, int, int]


def table(rows: int, columns: int, kind: str, *shards: Shard, kernel: str = "fused") -> dict[str, Any]:
    """An entry of a plan; a shard is (row, column, rows, columns, rank)."""
    return {
        "size": [rows, columns],
        "feature": "C1",
        "sharding_type": kind,
        "compute_kernel": "dense" if kind == "data_parallel" else kernel,
        "pooling_factor": 1.0,
        "batch_size": 64,
        "shards": None
        if kind == "data_parallel"
        else [dict(zip(("row", "column", "rows", "columns", "rank"), shard, strict=True)) for shard in shards],
    }


def plan_of(tables: dict[str, Any], cluster: str = "1x2:cpu", optimizer: str = "adagrad", batch_size: int = 128) -> dict[str, Any]:
    """The whole file's data."""
    made = parse_cluster(cluster)
    plan = {
        "format": "dmoe-plan",
        "version": 2,
        "world_size": made.ranks,
        "batch_size": batch_size,
        "optimizer": optimizer,
        "cluster": made.as_json(),
        "hashes": {"model": "m", "topology": "t", "constraints": "c"},
        "model": {"tables": len(tables), "dense_bytes": 1000, "variant": "small"},
        "room": {"hbm": 0.8 * made.device.hbm, "ddr": made.device.ddr},
        "tables": tables,
    }
    check_plan(plan, "test")
    return plan
