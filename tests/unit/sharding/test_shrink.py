"""A cluster's plan on a few ranks keeps every sharding type, every cut by columns, and what lies on one host."""

import pytest

from dmoe.config.config import parse_config
from dmoe.sharding.plan.plan_file import check_plan
from dmoe.sharding.plan.sharders import ALL_TYPES
from dmoe.sharding.plan.shrink_plan import BUDGET, fewer_ids, shape_of, shrink
from dmoe.sharding.planner.cluster import Cluster, parse_cluster
from dmoe.sharding.planner.planning_model import describe, manifest_of

SIZES = {"C1": 3_000_000, "C2": 70_000, "C3": 5, "C4": 900}


def model(manifest=None, *overrides):
    text = "model: {embedding: {dim: 64}, experts: [crossnet, {kind: mlp, hidden: [8]}], expert_dim: 8}\ntrain: {batch_size: 512}\n"
    return describe(parse_config(text, "test", list(overrides)), manifest or manifest_of(SIZES, "test"))


@pytest.mark.parametrize("kind", ALL_TYPES)
@pytest.mark.parametrize("ranks", [2, 4])
def test_every_sharding_type_survives(kind, ranks):
    cluster = parse_cluster("4x4:h100")
    big = model(None, f"sharding.types=[{kind}]")
    plan = big.plan(cluster, explain=False)
    small = shape_of(cluster, ranks)
    manifest = fewer_ids(big.manifest, big.tables, small, state=1)
    tables = model(manifest).tables
    shrunk = shrink(plan, cluster, small, tables, "adagrad", 64)
    assert check_plan(shrunk, "shrunk") == small
    for name, row in shrunk["tables"].items():
        before = plan["tables"][name]
        assert row["sharding_type"] == before["sharding_type"] == kind
        if before["shards"] is None:
            assert row["shards"] is None
            continue
        assert {(s["column"], s["columns"]) for s in row["shards"]} == {(s["column"], s["columns"]) for s in before["shards"]}
        # Shards that share a host still do: hosts 0 and 1 become node 0, 2 and 3 node 1.
        nodes = {s["column"]: s["rank"] // 4 * small.nodes // 4 for s in before["shards"]}
        if kind != "row_wise":
            assert {s["column"]: s["rank"] // small.ranks_a_node for s in row["shards"]} == nodes
    size = sum(t.rows * t.columns for t in tables) * 4 * 2 * ranks
    assert size <= BUDGET
    assert all(t.rows == min(SIZES[t.feature], max(x.rows for x in tables)) for t in tables)


@pytest.mark.parametrize(
    ("cluster", "ranks", "shape"),
    [("16x8:h100", 4, (2, 2)), ("16x8:h100", 2, (1, 2)), ("1x8:h100", 4, (1, 4)), ("8x1:cpu", 4, (4, 1)), ("1x2:cpu", 4, (1, 2))],
)
def test_nodes_are_kept_where_there_are_ranks_for_them(cluster, ranks, shape):
    small = shape_of(parse_cluster(cluster), ranks)
    assert isinstance(small, Cluster)
    assert (small.nodes, small.ranks_a_node) == shape
