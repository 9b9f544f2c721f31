"""Sharding options of each table: the config's constraints, and restrictions that keep the results correct."""

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass

from dmoe.config.config import Config
from dmoe.config.sections import TableConstraint
from dmoe.errors import UserError, nearest, one_line
from dmoe.model.embedding.tables import Table
from dmoe.names import quoted
from dmoe.sharding.plan.sharders import CUT_ROWS, allowed_types
from dmoe.sharding.planner.cluster import Cluster
from dmoe.sharding.planner.cost.lookup import Lookup

PINNABLE = ("table_wise", "column_wise")
MIN_COLUMNS = 32
"""Narrower column shards are tried only if requested: FBGEMM reads rows in blocks of 128 numbers, and part of a block is slower."""


@dataclass(frozen=True)
class Rule:
    """The sharding options of one table.

    Attributes:
        types: allowed sharding types.
        kernels: allowed compute kernels; None if the config names none: device memory first, host memory if nothing else fits.
        partitions: widths of column shards to try; empty if the table must not be sharded by columns.
        ranks: ranks that may hold its shards; None for all.
        batch_size: rows of the batch of one rank.
        lookup: number of ids per row, and how they are looked up.
        reasons: sharding type -> why it is not in `types`.
    """

    types: tuple[str, ...]
    kernels: tuple[str, ...] | None
    partitions: tuple[int, ...]
    ranks: tuple[int, ...] | None
    batch_size: int
    lookup: Lookup
    reasons: tuple[tuple[str, str], ...] = ()


def closed_types(cluster: Cluster) -> dict[str, str]:
    """Sharding type -> why it is not possible, if some ranks hold no table.

    A data-parallel table is complete on every rank. TorchRec could shard rows unevenly, with no rows on the excluded ranks. But plans,
    checkpoints and migrations assume equal blocks of rows on all ranks (`shard_layout.py`).
    """
    if not cluster.without:
        return {}
    left_out = f"rank {cluster.without[0]} is left out of the cluster"
    reasons = dict.fromkeys(("data_parallel", "row_wise"), left_out)
    if len({rank // cluster.ranks_a_node for rank in cluster.without}) == cluster.nodes:
        reasons |= dict.fromkeys(("table_row_wise", "grid_shard"), "every host has a rank that is left out")
    return reasons


def rules_for(tables: Sequence[Table], config: Config, cluster: Cluster) -> dict[str, Rule]:
    """The rule of each table.

    Raises:
        UserError: a constraint names no table (the message suggests the nearest name), or is impossible.
    """
    laid: dict[str, dict[str, object]] = {table.name: {} for table in tables}
    asked: dict[str, str] = {}
    of_feature: dict[str, list[str]] = {}
    for table in tables:
        of_feature.setdefault(table.feature, []).append(table.name)
    for pattern, constraint in config.sharding.tables.items():
        # Try an exact name before a pattern: a feature may be called `C1*` or `tags[0]`.
        matching = of_feature.get(pattern) or ([pattern] if pattern in laid else [one.name for one in tables if _matches(pattern, one)])
        if not matching:
            raise UserError(f"sharding.tables.{one_line(pattern)}: no such table{nearest(pattern, laid.keys() | of_feature.keys())}")
        for name in matching:
            laid[name] |= {key: value for key, value in constraint if value is not None}
            asked[name] = pattern
    return {
        table.name: _rule(table, TableConstraint.model_validate(laid[table.name]), config, cluster, asked.get(table.name, ""))
        for table in tables
    }


def _matches(pattern: str, table: Table) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for name in (table.name, table.feature))


def _rule(table: Table, asked: TableConstraint, config: Config, cluster: Cluster, pattern: str) -> Rule:
    where, rowwise = f"sharding.tables.{one_line(pattern)}", config.optimizer.tables.kind == "rowwise_adagrad"
    types = list(asked.types or allowed_types(config, cluster.ranks))
    reasons = closed_types(cluster)
    if asked.types and (closed := [kind for kind in asked.types if kind in reasons]):
        raise UserError(f"{where}.types: {closed[0]} cannot be: {reasons[closed[0]]}")
    types = [kind for kind in types if kind not in reasons]
    if rowwise and (cut := [kind for kind in asked.types or () if kind in CUT_ROWS]):
        raise UserError(f"{where}.types: {cut[0]} cuts rows, and row-wise Adagrad keeps one state a row; leave it out")
    for kind in sorted(CUT_ROWS) if rowwise else ():
        reasons[kind] = "row-wise Adagrad keeps one state a row"
    partitions = _partitions(table, asked.min_partition, where)
    if not partitions and not asked.types:
        for kind in [kind for kind in types if kind in CUT_ROWS]:
            reasons[kind] = "no width divides it"
        types = [kind for kind in types if kind not in CUT_ROWS]
    if asked.ranks is not None:
        if wrong := [rank for rank in asked.ranks if not 0 <= rank < cluster.ranks]:
            raise UserError(f"{where}.ranks: rank {wrong[0]}, but {cluster.name} has ranks 0 to {cluster.ranks - 1}")
        if wrong := [rank for rank in asked.ranks if rank in cluster.without]:
            raise UserError(f"{where}.ranks: rank {wrong[0]} is left out of the cluster (without)")
        if asked.types and (wrong_types := [kind for kind in asked.types if kind not in PINNABLE]):
            raise UserError(
                f"{where}: ranks pin table_wise and column_wise shards only, {wrong_types[0]} has shards on every rank of a host"
            )
        for kind in [kind for kind in types if kind not in PINNABLE]:
            reasons[kind] = f"{where}.ranks"
        types = [kind for kind in types if kind in PINNABLE]
    for kind in allowed_types(config, cluster.ranks):
        if kind not in types:
            reasons.setdefault(kind, f"{where}.types")
    if cluster.device.kind == "cpu" and asked.kernels and any("uvm" in kernel for kernel in asked.kernels):
        raise UserError(f"{where}.kernels: {asked.kernels[0]} is CUDA's; on CPU hosts tables are in the host's memory anyway")
    if not types:
        why = f" ({closed_types(cluster)[kind]})" if (kind := next(iter(closed_types(cluster)), "")) else ""
        raise UserError(
            f"{where if pattern else 'sharding.types'}: no sharding type is left for table {quoted(table.name)}{why};"
            " allow more in sharding.types"
        )
    return Rule(
        tuple(types),
        tuple(asked.kernels) if asked.kernels else None,
        partitions,
        tuple(sorted(set(asked.ranks))) if asked.ranks is not None else None,
        asked.batch_size or -(-config.train.batch_size // cluster.ranks),
        Lookup((asked.pooling_factor or table.mean_ids,) * len(table.keys)),
        tuple(sorted(reasons.items())),
    )


def _partitions(table: Table, asked: int | None, where: str) -> tuple[int, ...]:
    """The requested width, or the widths to try by default."""
    if asked is None:
        return partitions_of(table)
    if asked not in (widths := partitions_of(table, 1)):
        raise UserError(
            f"{where}.min_partition: {asked} divides neither the row of table {quoted(table.name)} ({table.columns} columns) into whole"
            f" embeddings of experts nor each of those; one of {list(widths)}"
        )
    return (asked,)


def partitions_of(table: Table, narrowest: int = MIN_COLUMNS) -> tuple[int, ...]:
    """Widths of column shards, widest first. A width divides the row, and either contains whole embeddings of experts or divides each.

    The whole row is one of them.

    Args:
        narrowest: minimum width of a part of an embedding.
    """
    columns = table.columns
    borders = {section.offset for section in table.sections} | {columns}

    def whole_sections(width: int) -> bool:
        return len(table.sections) > 1 and all(cut in borders for cut in range(width, columns, width))

    widths = [
        width
        for width in range(columns, 3, -4)
        if columns % width == 0 and (whole_sections(width) or all(border % width == 0 for border in borders))
    ]
    return tuple(width for width in widths if width == columns or whole_sections(width) or width >= narrowest)
