"""The plan for this process group: made on rank 0 or read from a file, and converted to a TorchRec ShardingPlan."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.distributed._shard.sharding_spec import EnumerableShardingSpec, ShardMetadata
from torchrec.distributed.types import EmbeddingModuleShardingPlan, ParameterSharding, ShardingPlan
from torchrec.modules.embedding_modules import EmbeddingBagCollectionInterface, EmbeddingCollectionInterface

from dmoe.config.config import Config
from dmoe.data.dataset.manifest import Manifest
from dmoe.distributed import on_rank_0
from dmoe.errors import UserError, nearest
from dmoe.model.embedding.tables import Table
from dmoe.sharding.plan.plan_file import check_plan, model_hash, read_plan
from dmoe.sharding.plan.sharders import CUT_ROWS, sharders
from dmoe.sharding.planner.cluster import Cluster, cluster_of_this_job
from dmoe.sharding.planner.cost.table_use import groups_in, uses_of
from dmoe.sharding.planner.planner import plan_tables

COLLECTIONS = (EmbeddingBagCollectionInterface, EmbeddingCollectionInterface)
__all__ = ["dense_bytes_of", "kept_plan", "make_plan", "plan_from_json", "sharders"]


def kept_plan(
    model: nn.Module, tables: list[Table], config: Config, device: torch.device, manifest: Manifest | None = None
) -> dict[str, Any]:
    """The plan of this job as plain data, equal on all ranks: read from the config's plan file, or made on rank 0.

    Args:
        manifest: manifest of the data set at `data.path`; if given, its counts provide lookup statistics.

    Raises:
        UserError: on every rank, if no plan fits, or the file is for another model, world size or topology.
    """

    def found() -> dict[str, Any]:
        cluster = cluster_of_this_job(device.type)
        if config.sharding.plan:
            plan = read_plan(config.sharding.plan, "sharding.plan")
            refuse_other(plan, tables, config, cluster, config.sharding.plan)
            # comm_precision is not part of the table placement: use the config's.
            return plan | {"comm_precision": config.sharding.comm_precision}
        groups = groups_in(config.data.path, manifest) if manifest is not None else {}
        uses = uses_of(groups, config.train.batch_size)
        return plan_tables(tables, config, cluster, dense_bytes_of(model), uses=uses)

    return on_rank_0(found)


def make_plan(model: nn.Module, tables: list[Table], config: Config, device: torch.device) -> ShardingPlan:
    """The plan of `kept_plan` as a TorchRec ShardingPlan."""
    return plan_from_json(kept_plan(model, tables, config, device), model, tables, device, config.sharding.plan or "plan")


def dense_bytes_of(model: nn.Module) -> int:
    """Bytes of all parameters except tables."""
    in_tables = {id(parameter) for module in model.modules() if isinstance(module, COLLECTIONS) for parameter in module.parameters()}
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters() if id(parameter) not in in_tables)


def refuse_other(plan: Mapping[str, Any], tables: Sequence[Table], config: Config, cluster: Cluster, where: str) -> None:
    """Refuses a plan that was made for another model or cluster.

    Raises:
        UserError: names the difference: the first table that differs, the optimizer, or the cluster.
    """
    there = check_plan(plan, where)
    if there.ranks != cluster.ranks:
        raise UserError(
            f"{where}: made for {there.ranks} ranks ({there.name}), this run has {cluster.ranks}; plan again or launch that many"
        )
    if differing := there.differences(cluster):
        raise UserError(f"{where}: made for another topology: {', '.join(differing)}; plan again for {cluster.name}")
    rows = plan["tables"]
    for table in tables:
        if table.name not in rows:
            raise UserError(f"{where}: no table '{table.name}', which the model has{nearest(table.name, rows)}; made for another model")
        if rows[table.name]["size"] != [table.rows, table.columns]:
            size = " x ".join(f"{value:,}" for value in rows[table.name]["size"])
            raise UserError(
                f"{where}: table '{table.name}' is {size} there and {table.rows:,} x {table.columns:,} in the model; plan again"
            )
    if extra := sorted(set(rows) - {table.name for table in tables}):
        raise UserError(f"{where}: table '{extra[0]}' is not in the model; the plan was made for another model")
    kind = config.optimizer.tables.kind
    if plan["optimizer"] != kind:
        raise UserError(f"{where}: made for optimizer.tables.kind {plan['optimizer']}, this run has {kind}; plan again")
    if plan["hashes"].get("model") != model_hash(tables, kind):
        raise UserError(f"{where}: made for tables of other sections (model.embedding, model.experts); plan again")
    if kind == "rowwise_adagrad" and (cut := [name for name, row in rows.items() if row["sharding_type"] in CUT_ROWS]):
        raise UserError(f"{where}: table '{cut[0]}' is cut by columns, and row-wise Adagrad keeps one state a row; plan again")


def plan_from_json(kept: Mapping[str, Any], model: nn.Module, tables: Sequence[Table], device: torch.device, where: str) -> ShardingPlan:
    """Checks a plan and converts it to a TorchRec ShardingPlan."""
    local = check_plan(kept, where).ranks_a_node
    parameters = {table.module: parameter_sharding(kept["tables"][table.name], device, kept["world_size"], local) for table in tables}
    (path,) = [name for name, module in model.named_modules() if hasattr(module, "embedding_bag_configs")]
    return ShardingPlan(plan={path: EmbeddingModuleShardingPlan(parameters)})


def placed_row(placed: ParameterSharding, table: Table, ids_a_row: float, batch_size: int) -> dict[str, Any]:
    """The plan file entry of a table that any TorchRec planner placed; `batch_size` is the batch size of one rank."""
    keys = ("row", "column", "rows", "columns", "rank")
    spec: Any = placed.sharding_spec
    return {
        "size": [table.rows, table.columns],
        "feature": table.feature,
        "sharding_type": placed.sharding_type,
        "compute_kernel": placed.compute_kernel,
        "pooling_factor": ids_a_row,
        "batch_size": batch_size,
        "shards": spec and [dict(zip(keys, (*s.shard_offsets, *s.shard_sizes, s.placement.rank()), strict=True)) for s in spec.shards],
    }


def parameter_sharding(row: Mapping[str, Any], device: torch.device, ranks: int, local: int) -> ParameterSharding:
    """Converts a table's entry in a plan to a TorchRec ParameterSharding."""
    if row["shards"] is None:
        return ParameterSharding(row["sharding_type"], row["compute_kernel"], list(range(ranks)), None)
    spec = EnumerableShardingSpec(
        [
            ShardMetadata(
                shard_offsets=[shard["row"], shard["column"]],
                shard_sizes=[shard["rows"], shard["columns"]],
                placement=f"rank:{shard['rank']}/cpu" if device.type == "cpu" else f"rank:{shard['rank']}/cuda:{shard['rank'] % local}",
            )
            for shard in row["shards"]
        ]
    )
    return ParameterSharding(row["sharding_type"], row["compute_kernel"], [shard["rank"] for shard in row["shards"]], spec)
