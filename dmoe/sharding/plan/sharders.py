"""TorchRec's sharders with all sharding types on all devices, and the types that a config allows."""

from itertools import accumulate
from typing import Any

import torch
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

    def shard(self, *arguments: Any, **options: Any) -> Any:
        return _with_empty_shards_corrected(super().shard(*arguments, **options))


class _CollectionSharder(EmbeddingCollectionSharder):
    def shard(self, *arguments: Any, **options: Any) -> Any:
        return _with_empty_shards_corrected(super().shard(*arguments, **options))


def _with_empty_shards_corrected(module: Any) -> Any:
    """Corrects the tables of a sharded module on CPUs if a shard has no rows, such as the third shard of 4 rows on 3 ranks.

    FBGEMM (fbgemm-gpu 1.8.0) reads from `hash_size_cumsum` how many rows stand before each table. If the number does not grow, its backward
    on CPUs treats two tables as one. If their dims differ, it then updates other rows, even beyond the end of the tables. If the last table
    is empty, it reads past the end of the tensor, and raises an error if it finds a large number there. Therefore an empty shard counts as
    one row here; no id looks it up.

    FBGEMM also decides by the size of the CPU weights whether to call its CPU kernel. If all shards of a rank are empty, it would call the
    GPU kernel. Therefore such a rank gets weights that no table uses.
    """
    for lookup in module._lookups:
        for kernel in lookup.modules():
            tables = getattr(kernel, "emb_module", None)
            rows = [one[0] for one in getattr(tables, "embedding_specs", ())]
            if tables is None or 0 not in rows or tables.hash_size_cumsum.device.type != "cpu":
                continue
            before = [0, *accumulate(max(1, count) for count in rows)]
            of_features = [before[table] for table in tables.feature_table_map]
            tables.hash_size_cumsum.copy_(torch.tensor([*of_features, before[-1]]))
            if not any(rows):
                tables.weights_host = nn.Parameter(torch.zeros(tables.max_D, dtype=tables.weights_host.dtype))
    return module


def sharders(codecs: dict[str, Any] | None = None) -> list[ModuleSharder[nn.Module]]:
    """The sharders for DistributedModelParallel; `codecs` from `codecs_of`."""
    return [AnyDeviceSharder(qcomm_codecs_registry=codecs), _CollectionSharder(qcomm_codecs_registry=codecs)]


def allowed_types(config: Config, world_size: int) -> list[str]:
    """The sharding types that a plan may use: those of the config, without types that change the optimizer of the tables."""
    types = list(config.sharding.types or ALL_TYPES)
    if world_size == 1 and not config.sharding.types:
        # One rank: the other types only add work.
        return [ShardingType.TABLE_WISE.value]
    if config.optimizer.tables.kind == "rowwise_adagrad":
        types = [kind for kind in types if kind not in CUT_ROWS]
    return types
