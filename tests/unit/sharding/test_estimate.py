"""Shards of equal size are estimated once: the figures are those of TorchRec's estimators asked for every shard."""

import pytest
import torch
from torchrec.distributed.planner import ParameterConstraints
from torchrec.distributed.planner.enumerators import EmbeddingEnumerator
from torchrec.modules.embedding_configs import EmbeddingBagConfig

from dmoe.config import parse_config
from dmoe.sharding.plan.qcomm import BYTES, codecs_of
from dmoe.sharding.plan.sharders import ALL_TYPES, sharders
from dmoe.sharding.planner.cluster import parse_cluster, topology_of
from dmoe.sharding.planner.enumerator import meta_collection
from dmoe.sharding.planner.estimators import DistinctShards, estimators


@pytest.mark.parametrize(("cluster", "precision"), [("2x4:h100", "fp32"), ("2x4:h100", "fp16"), ("1x3:cpu", "fp32")])
def test_equal_shards_cost_what_each_would_cost_alone(cluster, precision):
    codecs = codecs_of(parse_config(f"sharding: {{comm_precision: {precision}}}", "test"), torch.device("cpu"))
    topology = topology_of(parse_cluster(cluster))
    # Rows that no number of ranks divides, a table smaller than the ranks, and a wide one.
    sizes = {"odd": (1001, 64), "tiny": (2, 32), "large": (123_457, 128)}
    bags = [EmbeddingBagConfig(name=n, num_embeddings=r, embedding_dim=c, feature_names=[f"{n}_ids"]) for n, (r, c) in sizes.items()]
    constraints = {
        name: ParameterConstraints(sharding_types=list(ALL_TYPES), min_partition=16, pooling_factors=[3.0], batch_sizes=[64])
        for name in sizes
    }
    asked = estimators(topology, constraints)
    enumerator = EmbeddingEnumerator(topology, 64, constraints, asked)
    options = enumerator.enumerate(meta_collection(bags, "adagrad"), sharders(codecs))
    expected = {}
    for option in options:
        key = option.name, option.sharding_type, option.compute_kernel
        expected[key] = [(shard.perf.total, shard.storage.hbm, shard.storage.ddr) for shard in option.shards]
        for shard in option.shards:
            shard.perf = shard.storage = None
    assert any(len(costs) > 2 and len(set(costs)) > 1 for costs in expected.values()), "no table was cut unevenly"
    distinct = DistinctShards(options)
    assert sum(len(option.shards) for option in options) < sum(len(costs) for costs in expected.values())
    distinct.estimate(asked, BYTES[precision])
    distinct.restore()
    for option in options:
        found = [(shard.perf.total, shard.storage.hbm, shard.storage.ddr) for shard in option.shards]
        assert found == expected[option.name, option.sharding_type, option.compute_kernel]
