"""TorchRec's estimators, asked once for shards of equal size.

A shard's time and memory depend on its rows and columns alone, beside what its table's option fixes: 1,024 row shards of a table have
two or three distinct sizes. The time depends on rows under data_parallel alone: tables that are looked up alike share it.
`tests/unit/sharding/test_estimate.py` compares with the estimators asked shard by shard.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torchrec.distributed.planner import ParameterConstraints
from torchrec.distributed.planner.shard_estimators import EmbeddingPerfEstimator, EmbeddingStorageEstimator
from torchrec.distributed.planner.types import Shard, ShardEstimator, ShardingOption, Topology
from torchrec.distributed.planner.utils import build_sharder_data_map, sharder_name
from torchrec.distributed.types import CommOp

from dmoe.sharding.plan.sharders import sharders
from dmoe.sharding.planner.cost.lookup import NUMBER_BYTES, MeasuredStatistics

WITH_EMBEDDINGS = (CommOp.POOLED_EMBEDDINGS_ALL_TO_ALL, CommOp.POOLED_EMBEDDINGS_REDUCE_SCATTER, CommOp.SEQUENCE_EMBEDDINGS_ALL_TO_ALL)
"""What carries looked-up embeddings between ranks."""
CACHED = "fused_uvm_caching"


def estimators(topology: Topology, constraints: dict[str, ParameterConstraints]) -> list[ShardEstimator]:
    """Of time and of memory."""
    return [EmbeddingPerfEstimator(topology, constraints), EmbeddingStorageEstimator(topology, constraints)]


class DistinctShards:
    """Options with one shard of each size, until `restore` brings all of them back with what was estimated."""

    def __init__(self, options: Sequence[ShardingOption], constraints: Mapping[str, ParameterConstraints]) -> None:
        self.options, self.constraints = list(options), constraints
        self.every = [option.shards for option in self.options]
        for option in self.options:
            sizes = {(shard.size[0], shard.size[1]): shard for shard in option.shards}
            option.shards = [Shard(size=list(size), offset=shard.offset) for size, shard in sizes.items()]

    def estimate(self, asked: Sequence[ShardEstimator], wire: int) -> None:
        """
        Args:
            wire: bytes of a looked-up number or its gradient between ranks, as the codecs' of `comm.py` would tell the estimators.
        """
        data = build_sharder_data_map({sharder_name(one.module_type): one for one in sharders()})
        # Without a codec a float32 travels as four bytes, a float16 as two: the estimators ask the table.
        for operation in WITH_EMBEDDINGS if wire < NUMBER_BYTES["FP32"] else ():
            for one in data.values():
                one.qcomm_dtype_sizes[operation.name] = (wire, wire)
        for estimator in asked:
            if isinstance(estimator, EmbeddingPerfEstimator):
                self._estimate_times(estimator, data)
            else:
                estimator.estimate(self.options, data)

    def _estimate_times(self, estimator: EmbeddingPerfEstimator, data: Any) -> None:
        groups: dict[Any, list[ShardingOption]] = {}
        for option in self.options:
            groups.setdefault(self._time_key(option), []).append(option)
        estimator.estimate([some[0] for some in groups.values()], data)
        for first, *others in groups.values():
            known = {shard.size[1]: shard.perf for shard in first.shards}
            for option in others:
                option.is_weighted = first.is_weighted
                for shard in option.shards:
                    shard.perf = known[shard.size[1]]

    def _time_key(self, option: ShardingOption) -> Any:
        constraint = self.constraints[option.name]
        statistics = constraint.cache_params and constraint.cache_params.stats
        return (
            option.sharding_type,
            option.compute_kernel,
            option.name if option.sharding_type == "data_parallel" else frozenset(shard.size[1] for shard in option.shards),
            option.is_pooled,
            option.tensor.dtype,
            constraint.is_weighted,
            tuple(constraint.pooling_factors or ()),
            tuple(constraint.batch_sizes or ()),
            # Only a cache's time depends on what the data's counts say.
            statistics.use if option.compute_kernel == CACHED and isinstance(statistics, MeasuredStatistics) else None,
        )

    def restore(self) -> None:
        """Shards of equal size share their `perf` and `storage` from here on."""
        for option, shards in zip(self.options, self.every, strict=True):
            known = {(shard.size[0], shard.size[1]): shard for shard in option.shards}
            for shard in shards:
                same = known[shard.size[0], shard.size[1]]
                shard.perf, shard.storage = same.perf, same.storage
            option.shards = shards
