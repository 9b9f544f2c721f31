"""Shards of equal size are estimated once: the figures are those of TorchRec's estimators asked for every shard."""

import pytest
import torch
from torchrec.distributed.planner import ParameterConstraints
from torchrec.distributed.planner.enumerators import EmbeddingEnumerator

from dmoe.config.config import parse_config
from dmoe.sharding.plan.qcomm import BYTES, codecs_of
from dmoe.sharding.plan.sharders import ALL_TYPES, sharders
from dmoe.sharding.planner.cluster import parse_cluster, topology_of
from dmoe.sharding.planner.constraints import rules_for
from dmoe.sharding.planner.cost.enumerator import IN_HOST, alike, candidates_of, constraint_of
from dmoe.sharding.planner.cost.estimators import DistinctShards, estimators
from dmoe.sharding.planner.cost.lookup import Lookup, MetaTable, meta_module
from dmoe.sharding.planner.planning_model import describe, manifest_of


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


def test_each_shard_of_a_candidate_costs_what_torchrec_says_of_it():
    # Two tables that are looked up alike, so that their shards take the same time, but have other bytes.
    cluster, sizes = parse_cluster("2x4:h100"), {"odd": 1001, "other": 5003}
    topology = topology_of(cluster)
    model = describe(parse_config("model: {embedding: {dim: 16}, experts: [mlp, mlp]}", "test"), manifest_of(sizes, "test"))
    rules = rules_for(model.tables, model.config, cluster)
    found = candidates_of(model.tables, rules, "adagrad", topology, in_host=True, wire=4)
    checked = 0
    for table in model.tables:
        rule = rules[table.name]
        kinds = ["row_wise", "table_row_wise", "grid_shard"]
        constraints = {table.name: constraint_of(rule.lookup, rule.batch_size, kinds, IN_HOST, 16)}
        options = EmbeddingEnumerator(topology, rule.batch_size, constraints, estimators(topology, constraints)).enumerate(
            meta_module([MetaTable(table.name, table.rows, table.columns, rule.lookup)], "adagrad"), sharders()
        )
        for option in options:
            asked = option.sharding_type, option.compute_kernel, option.shards[0].size[1]
            (one,) = [one for one in found[alike(table, rule)] if (one.sharding_type, one.kernel, one.sizes[0][1]) == asked]
            costs = [(shard.perf.total, shard.storage.hbm, shard.storage.ddr) for shard in option.shards]
            assert list(zip(one.time, one.hbm, one.ddr, strict=True)) == costs
            # The last block has fewer rows.
            checked += len(set(costs)) > 1
    assert checked >= 6
