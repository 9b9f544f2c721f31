"""TorchRec's sharders with all sharding types on all devices, and the types that a config allows."""

from typing import Any

from torch import nn
from torchrec.distributed.embedding import EmbeddingCollectionSharder
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.types import ModuleSharder, ShardingType

from dmoe.config.config import Config

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
"""Types that shard columns. They change row-wise Adagrad, which then keeps one state per row and column shard."""


class AnyDeviceSharder(EmbeddingBagCollectionSharder):
    """TorchRec's sharder with row-wise types also on CPU, where TorchRec excludes them although they work (issues 1252, 2958)."""

    def sharding_types(self, compute_device_type: str) -> list[str]:
        return list(ALL_TYPES)


def sharders(codecs: dict[str, Any] | None = None) -> list[ModuleSharder[nn.Module]]:
    """The sharders for DistributedModelParallel; `codecs` from `codecs_of`."""
    return [AnyDeviceSharder(qcomm_codecs_registry=codecs), EmbeddingCollectionSharder(qcomm_codecs_registry=codecs)]


def allowed_types(config: Config, world_size: int) -> list[str]:
    """The sharding types that a plan may use: those of the config, without types that change the optimizer of the tables."""
    types = list(config.sharding.types or ALL_TYPES)
    if world_size == 1 and not config.sharding.types:
        # One rank: the other types only add work.
        return [ShardingType.TABLE_WISE.value]
    if config.optimizer.tables.kind == "rowwise_adagrad":
        types = [kind for kind in types if kind not in CUT_ROWS]
    return types
