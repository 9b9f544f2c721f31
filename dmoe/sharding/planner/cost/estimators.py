"""Calls TorchRec's estimators once for all shards of equal size.

For a given sharding option, time and memory of a shard depend only on its rows and columns: 1,024 row shards of a table have two or three
distinct sizes. Time depends on the rows only for data_parallel, so tables with equal lookups share it.
`tests/unit/sharding/test_estimate.py` compares the result with an estimate of each shard.
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
"""Collectives that send embeddings between ranks."""
CACHED = "fused_uvm_caching"


def estimators(topology: Topology, constraints: dict[str, ParameterConstraints]) -> list[ShardEstimator]:
    """TorchRec's estimators of time and of memory."""
    return [EmbeddingPerfEstimator(topology, constraints), EmbeddingStorageEstimator(topology, constraints)]


class DistinctShards:
    """Options reduced to one shard per size; `restore` puts all shards back, with the estimates."""

    def __init__(self, options: Sequence[ShardingOption], constraints: Mapping[str, ParameterConstraints]) -> None:
        self.options, self.constraints = list(options), constraints
        self.every = [option.shards for option in self.options]
        for option in self.options:
            sizes = {(shard.size[0], shard.size[1]): shard for shard in option.shards}
            option.shards = [Shard(size=list(size), offset=shard.offset) for size, shard in sizes.items()]

    def estimate(self, asked: Sequence[ShardEstimator], wire: int) -> None:
        """
        Args:
            wire: bytes of a sent element of an embedding or its gradient, as the codecs of `qcomm.py` would report it.
        """
        data = build_sharder_data_map({sharder_name(one.module_type): one for one in sharders()})
        # Without a codec, the estimators use the data type of the table: 4 bytes for float32, 2 for float16.
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
            # Only the time of cached tables depends on the lookup counts.
            statistics.use if option.compute_kernel == CACHED and isinstance(statistics, MeasuredStatistics) else None,
        )

    def restore(self) -> None:
        """Restores all shards; those of equal size share their `perf` and `storage`."""
        for option, shards in zip(self.options, self.every, strict=True):
            known = {(shard.size[0], shard.size[1]): shard for shard in option.shards}
            for shard in shards:
                same = known[shard.size[0], shard.size[1]]
                shard.perf, shard.storage = same.perf, same.storage
            option.shards = shards
