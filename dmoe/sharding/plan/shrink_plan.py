"""Reduces a cluster's plan to a few ranks: each table keeps its sharding type, column shards and host, with fewer rows and ranks."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from dmoe.data.dataset.manifest import Manifest
from dmoe.model.embedding.tables import Table
from dmoe.sharding.plan.plan_file import hash_of, model_hash
from dmoe.sharding.plan.shard_layout import blocks
from dmoe.sharding.planner.cluster import PRESETS, Cluster

BUDGET = 256 << 20
"""Maximum bytes of all tables with their state, over all ranks of a rehearsal."""
LEAST_ROWS, MOST_ROWS = 64, 100_000


def shape_of(cluster: Cluster, ranks: int) -> Cluster:
    """The nodes and ranks of a rehearsal: two nodes if the cluster has several and there are at least four ranks, so that a plan still has
    communication within and between nodes."""
    if cluster.ranks <= ranks:
        return Cluster(cluster.nodes, cluster.ranks_a_node, PRESETS["cpu"])
    if cluster.ranks_a_node == 1:
        return Cluster(ranks, 1, PRESETS["cpu"])
    if cluster.nodes > 1 and ranks >= 4 and ranks % 2 == 0:
        return Cluster(2, ranks // 2, PRESETS["cpu"])
    return Cluster(1, ranks, PRESETS["cpu"])


def fewer_ids(manifest: Manifest, tables: Sequence[Table], small: Cluster, state: int) -> Manifest:
    """The manifest with a maximum number of ids per feature, chosen so that all tables fit in BUDGET.

    Args:
        state: elements of optimizer state per element of a table.
    """
    columns: Counter[str] = Counter()
    for table in tables:
        columns[table.feature] += table.columns
    most = MOST_ROWS
    while most > LEAST_ROWS:
        # Assumes that all tables are replicated.
        size = sum(min(one.cardinality, most) * columns[one.name] for one in manifest.categorical) * 4 * (1 + state) * small.ranks
        if size <= BUDGET:
            break
        most //= 2
    capped = [one.model_copy(update={"cardinality": min(one.cardinality, most)}) for one in manifest.categorical]
    return manifest.model_copy(update={"categorical": tuple(capped)})


def shrink(
    plan: Mapping[str, Any], cluster: Cluster, small: Cluster, tables: Sequence[Table], optimizer: str, batch_size: int
) -> dict[str, Any]:
    """The plan file for the small cluster.

    Args:
        plan: plan for `cluster`, checked by `read_plan`.
        tables: tables of the model with fewer rows; names and columns as in the plan.
        optimizer: optimizer of the tables in the rehearsal.
    """
    rows = {}
    for table in tables:
        row = plan["tables"][table.name]
        rows[table.name] = {
            "size": [table.rows, table.columns],
            "feature": table.feature,
            "sharding_type": row["sharding_type"],
            "compute_kernel": "dense" if row["compute_kernel"] == "dense" else "fused",
            "pooling_factor": row["pooling_factor"],
            "batch_size": -(-batch_size // small.ranks),
            "shards": None if row["shards"] is None else _shards(row, table, cluster, small),
        }
    return {
        **{key: plan[key] for key in ("format", "version")},
        "world_size": small.ranks,
        "batch_size": batch_size,
        "optimizer": optimizer,
        "cluster": small.as_json(),
        "hashes": {"model": model_hash(tables, optimizer), "topology": hash_of(small.as_json()), "constraints": ""},
        "model": dict(plan["model"]),
        "tables": rows,
    }


def _shards(row: Mapping[str, Any], table: Table, cluster: Cluster, small: Cluster) -> list[dict[str, int]]:
    kind, local = row["sharding_type"], small.ranks_a_node
    if kind == "row_wise":
        return _by_rows(table.rows, 0, table.columns, list(range(small.ranks)))
    if kind in ("table_row_wise", "grid_shard"):
        # All rows of a block of columns are on the ranks of one host.
        of_column = {shard["column"]: shard for shard in row["shards"]}
        shards = []
        for column, shard in sorted(of_column.items()):
            first = _node(shard["rank"], cluster, small) * local
            shards += _by_rows(table.rows, column, shard["columns"], list(range(first, first + local)))
        return shards
    return [
        {"row": 0, "column": shard["column"], "rows": table.rows, "columns": shard["columns"], "rank": _rank(shard["rank"], cluster, small)}
        for shard in row["shards"]
    ]


def _by_rows(rows: int, column: int, columns: int, ranks: list[int]) -> list[dict[str, int]]:
    """Row shards as TorchRec makes them: equal blocks, the last ones shorter or empty."""
    return [
        {"row": row, "column": column, "rows": height, "columns": columns, "rank": rank}
        for (row, height), rank in zip(blocks(rows, len(ranks)), ranks, strict=True)
    ]


def _node(rank: int, cluster: Cluster, small: Cluster) -> int:
    return rank // cluster.ranks_a_node * small.nodes // cluster.nodes


def _rank(rank: int, cluster: Cluster, small: Cluster) -> int:
    local = rank % cluster.ranks_a_node * small.ranks_a_node // cluster.ranks_a_node
    return _node(rank, cluster, small) * small.ranks_a_node + local
