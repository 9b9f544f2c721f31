"""Shards of equal size are estimated once: the figures are those of TorchRec's estimators asked for every shard."""

import pytest
import torch
from torchrec.distributed.planner import ParameterConstraints
from torchrec.distributed.planner.enumerators import EmbeddingEnumerator

from dmoe.config import parse_config
from dmoe.sharding.plan.qcomm import BYTES, codecs_of
from dmoe.sharding.plan.sharders import ALL_TYPES, sharders
from dmoe.sharding.planner.cluster import parse_cluster, topology_of
from dmoe.sharding.planner.cost.estimators import DistinctShards, estimators
from dmoe.sharding.planner.cost.lookup import Lookup, MetaTable, meta_module


@pytest.mark.parametrize(("cluster", "precision"), [("2x4:h100", "fp32"), ("2x4:h100", "fp16"), ("1x3:cpu", "fp32")])
def test_equal_shards_cost_what_each_would_cost_alone(cluster, precision):
    codecs = codecs_of(parse_config(f"sharding: {{comm_precision: {precision}}}", "test"), torch.device("cpu"))
    topology = topology_of(parse_cluster(cluster))
    # Rows that no number of ranks divides, a table smaller than the ranks, a wide one, and what other models have.
    tables = [
        MetaTable("odd", 1001, 64, Lookup((3.0,))),
        MetaTable("tiny", 2, 32, Lookup((3.0,))),
        MetaTable("large", 123_457, 128, Lookup((3.0,))),
        MetaTable("looked up like large", 99_001, 128, Lookup((3.0,))),
        MetaTable("shared", 5003, 64, Lookup((1.0, 20.0))),
        MetaTable("weighted", 5003, 64, Lookup((5.0,), weighted=True)),
        MetaTable("sequence", 5003, 64, Lookup((5.0,), pooled=False)),
        MetaTable("fp16_table", 5003, 64, Lookup((5.0,), data_type="FP16")),
    ]
    constraints = {
        one.name: ParameterConstraints(
            sharding_types=list(ALL_TYPES),
            min_partition=16,
            pooling_factors=list(one.lookup.ids),
            batch_sizes=[64] * len(one.lookup.ids),
            is_weighted=one.lookup.weighted,
        )
        for one in tables
    }
    asked = estimators(topology, constraints)
    enumerator = EmbeddingEnumerator(topology, 64, constraints, asked)
    options = enumerator.enumerate(meta_module(tables, "adagrad"), sharders(codecs))
    expected = {}
    for option in options:
        key = option.name, option.sharding_type, option.compute_kernel
        expected[key] = [(shard.perf.total, shard.storage.hbm, shard.storage.ddr) for shard in option.shards]
        for shard in option.shards:
            shard.perf = shard.storage = None
    assert any(len(costs) > 2 and len(set(costs)) > 1 for costs in expected.values()), "no table was cut unevenly"
    distinct = DistinctShards(options, constraints)
    assert sum(len(option.shards) for option in options) < sum(len(costs) for costs in expected.values())
    distinct.estimate(asked, BYTES[precision])
    distinct.restore()
    for option in options:
        found = [(shard.perf.total, shard.storage.hbm, shard.storage.ddr) for shard in option.shards]
        assert found == expected[option.name, option.sharding_type, option.compute_kernel]
