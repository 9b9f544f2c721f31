"""Validates the shard layout that TorchRec assumes for each sharding type, which a plan edited by hand may violate.

The kernels find a row by its block: with another layout they read wrong rows, without an error, or hang.
"""

from collections.abc import Mapping
from typing import Any

from dmoe.sharding.planner.cluster import Cluster

MAX_ROWS, MAX_COLUMNS = 1 << 40, 1 << 20
WHOLE_ROWS = ("table_wise", "row_wise", "table_row_wise")
SHARD = ("row", "column", "rows", "columns", "rank")
Cut = tuple[int, int, int, int, int]


def blocks(rows: int, parts: int) -> list[tuple[int, int]]:
    """(First row, number of rows) of each part: ceil(rows / parts) rows each; the last parts have fewer or none."""
    size = -(-rows // parts)
    return [(min(part * size, rows), max(min(size, rows - part * size), 0)) for part in range(parts)]


def check_cuts(entry: Mapping[str, Any], cluster: Cluster) -> None:
    """Checks that the shards of a table cover it exactly once, in the layout of its sharding type.

    Args:
        entry: entry of the table in a plan; the types of its fields were checked.

    Raises:
        ValueError: says what is wrong, and names the shard if a single one is wrong.
    """
    (rows, columns), kind = entry["size"], entry["sharding_type"]
    shards: list[Cut] = []
    for number, shard in enumerate(entry["shards"]):
        row, column, height, width, rank = (shard[key] for key in SHARD)
        if rank >= cluster.ranks:
            raise ValueError(f"shard {number} is on rank {rank}, but {cluster.name} has ranks 0 to {cluster.ranks - 1}")
        if rank in cluster.without:
            raise ValueError(f"shard {number} is on rank {rank}, which {cluster.name} leaves out (without)")
        if row + height > rows or column + width > columns:
            raise ValueError(f"shard {number} reaches beyond the table's {rows} x {columns}")
        shards.append((row, column, height, width, rank))
    _check_ranks(kind, [shard[4] for shard in shards], cluster)
    parts = {"row_wise": cluster.ranks, "table_row_wise": cluster.ranks_a_node, "grid_shard": cluster.ranks_a_node}.get(kind, 1)
    expected = blocks(rows, parts)
    side = 0
    for start in range(0, len(shards), parts):
        group = shards[start : start + parts]
        width = group[0][3]
        for number, (shard, (row, height)) in enumerate(zip(group, expected, strict=True), start):
            if shard[:4] != (row, side, height, width) or not width:
                raise ValueError(
                    f"shard {number} is {height_and_width(shard)}; {kind} shards are in order, without a gap, and of"
                    f" {' or '.join(f'{size:,}' for size in sorted({size for _, size in expected}))} rows on {cluster.name}"
                )
        if width % 4 and width != columns:
            raise ValueError(f"shard {start} has {width} columns; a part of a row has a multiple of 4, which the kernels need")
        side += width
    if side != columns:
        raise ValueError(f"its shards cover {side} of {columns} columns")
    if kind in WHOLE_ROWS and len(shards) != parts:
        raise ValueError(f"{kind} does not cut columns")


def height_and_width(shard: Cut) -> str:
    row, column, height, width, _ = shard
    return f"{height:,} x {width:,} from row {row:,}, column {column:,}"


def _check_ranks(kind: str, ranks: list[int], cluster: Cluster) -> None:
    local = cluster.ranks_a_node
    if not ranks:
        raise ValueError("it has no shard")
    if kind == "table_wise" and len(ranks) != 1:
        raise ValueError(f"table_wise has one shard, found {len(ranks)}")
    if kind == "row_wise" and ranks != list(range(cluster.ranks)):
        raise ValueError("row_wise has one shard on every rank, in their order")
    if kind == "table_column_wise" and len({rank // local for rank in ranks}) != 1:
        raise ValueError("table_column_wise has all shards on one host")
    if kind in ("table_row_wise", "grid_shard"):
        groups = [ranks[start : start + local] for start in range(0, len(ranks), local)]
        if any(group != list(range(group[0] // local * local, group[0] // local * local + local)) for group in groups):
            raise ValueError(f"{kind} has its shards on all ranks of a host, in their order")
