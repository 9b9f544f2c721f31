"""TorchRec's estimators, asked once for shards of equal size.

A shard's time and memory depend on its rows and columns alone, beside what its table's option fixes: 1,024 row shards of a table have
two or three distinct sizes. `tests/unit/sharding/test_estimate.py` compares with the estimators asked shard by shard.
"""

from collections.abc import Sequence

from torchrec.distributed.planner import ParameterConstraints
from torchrec.distributed.planner.shard_estimators import EmbeddingPerfEstimator, EmbeddingStorageEstimator
from torchrec.distributed.planner.types import Shard, ShardEstimator, ShardingOption, Topology
from torchrec.distributed.planner.utils import build_sharder_data_map, sharder_name
from torchrec.distributed.types import CommOp

from dmoe.sharding.plan.sharders import AnyDeviceSharder


def estimators(topology: Topology, constraints: dict[str, ParameterConstraints]) -> list[ShardEstimator]:
    """Of time and of memory."""
    return [EmbeddingPerfEstimator(topology, constraints), EmbeddingStorageEstimator(topology, constraints)]


class DistinctShards:
    """Options with one shard of each size, until `restore` brings all of them back with what was estimated."""

    def __init__(self, options: Sequence[ShardingOption]) -> None:
        self.options = list(options)
        self.every = [option.shards for option in self.options]
        for option in self.options:
            sizes = {(shard.size[0], shard.size[1]): shard for shard in option.shards}
            option.shards = [Shard(size=list(size), offset=shard.offset) for size, shard in sizes.items()]

    def estimate(self, asked: Sequence[ShardEstimator], wire: int) -> None:
        """
        Args:
            wire: bytes of a looked-up number or its gradient between ranks, as the codecs' of `comm.py` would tell the estimators.
        """
        sharder = AnyDeviceSharder()
        data = build_sharder_data_map({sharder_name(sharder.module_type): sharder})
        for operation in (CommOp.POOLED_EMBEDDINGS_ALL_TO_ALL, CommOp.POOLED_EMBEDDINGS_REDUCE_SCATTER):
            for one in data.values():
                one.qcomm_dtype_sizes[operation.name] = (wire, wire)
        for estimator in asked:
            estimator.estimate(self.options, data)

    def restore(self) -> None:
        """Shards of equal size share their `perf` and `storage` from here on."""
        for option, shards in zip(self.options, self.every, strict=True):
            known = {(shard.size[0], shard.size[1]): shard for shard in option.shards}
            for shard in shards:
                same = known[shard.size[0], shard.size[1]]
                shard.perf, shard.storage = same.perf, same.storage
            option.shards = shards
