"""Making a plan with TorchRec's planner, and keeping it as a file."""

import json
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed._shard.sharding_spec import EnumerableShardingSpec, ShardMetadata
from torchrec.distributed.embedding_types import EmbeddingComputeKernel
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.planner import EmbeddingShardingPlanner, ParameterConstraints, Topology
from torchrec.distributed.planner.types import PlannerError
from torchrec.distributed.types import EmbeddingModuleShardingPlan, ModuleSharder, ParameterSharding, ShardingPlan, ShardingType

from dmoe.config import Config
from dmoe.distributed import local_world_size, world_size
from dmoe.errors import UserError
from dmoe.model.tables import Table

FORMAT, VERSION = "dmoe-plan", 1
ALL_TYPES = [
    ShardingType.DATA_PARALLEL,
    ShardingType.TABLE_WISE,
    ShardingType.COLUMN_WISE,
    ShardingType.ROW_WISE,
    ShardingType.TABLE_ROW_WISE,
    ShardingType.TABLE_COLUMN_WISE,
    ShardingType.GRID_SHARD,
]
CUT_ROWS = {ShardingType.COLUMN_WISE.value, ShardingType.TABLE_COLUMN_WISE.value, ShardingType.GRID_SHARD.value}
"""Types under which row-wise Adagrad, one state a row and column shard, would be another optimiser."""


class AnyDeviceSharder(EmbeddingBagCollectionSharder):
    """TorchRec's sharder, which leaves row-wise types out on CPU although they run there (torchrec issues 1252, 2958)."""

    def sharding_types(self, compute_device_type: str) -> list[str]:
        return [kind.value for kind in ALL_TYPES]


def sharders() -> list[ModuleSharder[nn.Module]]:
    return [AnyDeviceSharder()]


def allowed_types(config: Config) -> list[str]:
    """The sharding types that a plan may use: those of the config, less what the tables' optimiser would make another model of."""
    types = list(config.sharding.types or [kind.value for kind in ALL_TYPES])
    if world_size() == 1 and not config.sharding.types:
        # Nothing to shard over: every other type is this one with more work.
        return [ShardingType.TABLE_WISE.value]
    if config.optimizer.tables.kind == "rowwise_adagrad":
        types = [kind for kind in types if kind not in CUT_ROWS]
    return types


def make_plan(model: nn.Module, tables: list[Table], config: Config, device: torch.device) -> ShardingPlan:
    """Plans on rank 0 and sends the plan to all ranks.

    Raises:
        UserError: nothing that the config allows fits.
    """
    ranks, local = world_size(), min(local_world_size(), world_size())
    topology = Topology(world_size=ranks, local_world_size=local, compute_device=device.type)
    types = allowed_types(config)
    constraints = {table.name: ParameterConstraints(sharding_types=types) for table in tables}
    per_rank = -(-config.train.batch_size // ranks)
    planner = EmbeddingShardingPlanner(topology=topology, batch_size=per_rank, constraints=constraints)
    try:
        return planner.collective_plan(model, sharders(), dist.group.WORLD)
    except PlannerError as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else error.error_type.value
        raise UserError(
            f"sharding: no plan of types {', '.join(types)} fits {ranks} ranks ({reason.rstrip('.')});"
            " allow more in sharding.types, use more ranks, or smaller model.embedding.dim"
        ) from None


def plan_as_json(plan: ShardingPlan, tables: list[Table]) -> dict[str, Any]:
    """The plan as plain data: per table its size, sharding type, kernel, and for every shard [row, column], [rows, columns], rank."""
    (module,) = plan.plan.values()
    sized = {table.name: [table.rows, table.columns] for table in tables}
    kept = {}
    for name, parameter in sorted(module.items()):
        spec = parameter.sharding_spec
        kept[name] = {
            "size": sized[name],
            "sharding_type": parameter.sharding_type,
            "compute_kernel": parameter.compute_kernel,
            "ranks": parameter.ranks,
            "shards": None if spec is None else [_shard_as_json(shard) for shard in spec.shards],
        }
    return {"format": FORMAT, "version": VERSION, "world_size": world_size(), "tables": kept}


def _shard_as_json(shard: ShardMetadata) -> dict[str, Any]:
    assert shard.placement is not None
    return {"offset": list(shard.shard_offsets), "size": list(shard.shard_sizes), "rank": shard.placement.rank()}


def plan_from_json(kept: Any, model: nn.Module, tables: list[Table], device: torch.device, where: str) -> ShardingPlan:
    """The plan that `plan_as_json` kept, for this model and world size.

    Raises:
        UserError: of another version, model or world size; says what differs.
    """
    if not isinstance(kept, dict) or kept.get("format") != FORMAT or kept.get("version") != VERSION:
        raise UserError(f"{where}: not a dmoe plan of version {VERSION}")
    if kept.get("world_size") != world_size():
        raise UserError(f"{where}: made for {kept.get('world_size')} ranks, this run has {world_size()}; plan again or launch that many")
    rows = kept.get("tables", {})
    sized = {table.name: [table.rows, table.columns] for table in tables}
    for name, size in sized.items():
        if name not in rows:
            raise UserError(f"{where}: no table '{name}', which the model has; the plan was made for another model")
        if rows[name].get("size") != size:
            raise UserError(f"{where}: table '{name}' is {rows[name].get('size')} there and {size} in the model; plan again")
    if extra := sorted(set(rows) - set(sized)):
        raise UserError(f"{where}: table '{extra[0]}' is not in the model; the plan was made for another model")
    try:
        parameters = {name: _parameter_from_json(row, device) for name, row in rows.items()}
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{where}: a table's entry is damaged ({error}); plan again") from None
    (path,) = [name for name, module in model.named_modules() if hasattr(module, "embedding_bag_configs")]
    return ShardingPlan(plan={path: EmbeddingModuleShardingPlan(parameters)})


def _parameter_from_json(row: dict[str, Any], device: torch.device) -> ParameterSharding:
    spec = None
    if row["shards"] is not None:
        spec = EnumerableShardingSpec(
            [
                ShardMetadata(
                    shard_offsets=[int(x) for x in shard["offset"]],
                    shard_sizes=[int(x) for x in shard["size"]],
                    placement=_placement(int(shard["rank"]), device),
                )
                for shard in row["shards"]
            ]
        )
    kernel = EmbeddingComputeKernel(row["compute_kernel"]).value
    return ParameterSharding(ShardingType(row["sharding_type"]).value, kernel, row["ranks"], spec)


def _placement(rank: int, device: torch.device) -> str:
    return f"rank:{rank}/cpu" if device.type == "cpu" else f"rank:{rank}/cuda:{rank % max(local_world_size(), 1)}"


def load_plan_file(text: str, where: str) -> Any:
    """The JSON of a plan file."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not JSON ({error})") from None
