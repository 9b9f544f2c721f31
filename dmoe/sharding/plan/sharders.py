"""TorchRec's sharders with every sharding type on every device, and the types that a config lets a plan use."""

from typing import Any

from torch import nn
from torchrec.distributed.embedding import EmbeddingCollectionSharder
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.types import ModuleSharder, ShardingType

from dmoe.config import Config

ALL_TYPES = [
    ShardingType.DATA_PARALLEL.value,
    ShardingType.TABLE_WISE.value,
    ShardingType.COLUMN_WISE.value,
    ShardingType.ROW_WISE.value,
    ShardingType.TABLE_ROW_WISE.value,
    ShardingType.TABLE_COLUMN_WISE.value,
    ShardingType.GRID_SHARD.value,
]
CUT_ROWS = {ShardingType.COLUMN_WISE.value, ShardingType.TABLE_COLUMN_WISE.value, ShardingType.GRID_SHARD.value}
"""Types under which row-wise Adagrad, one state a row and column shard, would be another optimizer."""


class AnyDeviceSharder(EmbeddingBagCollectionSharder):
    """TorchRec's sharder, which leaves row-wise types out on CPU although they run there (torchrec issues 1252, 2958)."""

    def sharding_types(self, compute_device_type: str) -> list[str]:
        return list(ALL_TYPES)


def sharders(codecs: dict[str, Any] | None = None) -> list[ModuleSharder[nn.Module]]:
    """For DistributedModelParallel; `codecs` from `codecs_of`."""
    return [AnyDeviceSharder(qcomm_codecs_registry=codecs), EmbeddingCollectionSharder(qcomm_codecs_registry=codecs)]


def allowed_types(config: Config, world_size: int) -> list[str]:
    """The sharding types that a plan may use: those of the config, less what the tables' optimizer would make another model of."""
    types = list(config.sharding.types or ALL_TYPES)
    if world_size == 1 and not config.sharding.types:
        # Nothing to shard over: every other type is this one with more work.
        return [ShardingType.TABLE_WISE.value]
    if config.optimizer.tables.kind == "rowwise_adagrad":
        types = [kind for kind in types if kind not in CUT_ROWS]
    return types
