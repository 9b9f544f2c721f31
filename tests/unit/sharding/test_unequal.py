"""Clusters of unequal ranks: other memory on some, no table on others; from the file to what is shown, checked and refused."""

import copy
import json
import warnings

import numpy as np
import pytest
from torch import nn
from torchrec.distributed.planner.storage_reservations import HeuristicalStorageReservation
from torchrec.distributed.planner.types import CustomTopologyData, Topology

import dmoe
from dmoe.config.config import parse_config
from dmoe.errors import UserError
from dmoe.sharding.plan import check
from dmoe.sharding.plan.plan_file import check_plan, read_plan, write_plan
from dmoe.sharding.plan.report import show
from dmoe.sharding.plan.report.plan_stats import figures_of
from dmoe.sharding.plan.sharders import sharders
from dmoe.sharding.planner.cluster import GIB, cluster_from_json, parse_cluster, topology_of
from dmoe.sharding.planner.constraints import rules_for
from dmoe.sharding.planner.cost.enumerator import constraint_of
from dmoe.sharding.planner.cost.lookup import MetaTable, meta_module
from dmoe.sharding.planner.planning_model import describe, manifest_of
from dmoe.sharding.planner.room import RESERVED, DoesNotFit, room_of
from tests.unit.sharding.small_plans import plan_of, table

CONFIG = "{model: {embedding: {dim: 64}, expert_dim: 8, experts: [mlp]}, train: {batch_size: 4096}}"
SIZES = {f"C{i}": 40_000_000 for i in range(12)} | {"small": 50}


def cluster_of(tmp_path, text, shape="2x4"):
    (tmp_path / "my.yaml").write_text(text)
    return parse_cluster(f"{shape}:{tmp_path}/my.yaml")


def model(*overrides):
    return describe(parse_config(CONFIG, "test", list(overrides)), manifest_of(dict(SIZES), "test"))


def room(cluster, described):
    rules = rules_for(described.tables, described.config, cluster)
    return room_of(described.tables, rules, cluster, topology_of(cluster), described.dense_bytes), rules


@pytest.mark.parametrize(("base", "key"), [("h100", "hbm_cap"), ("cpu", "ddr_cap")])
def test_the_room_is_what_torchrec_reserves_on_a_topology_of_unequal_ranks(tmp_path, base, key):
    cluster = cluster_of(tmp_path, f"{{base: {base}, memory_of: {{3: 40e9, 6: 30e9}}}}")
    described = model()
    found, rules = room(cluster, described)
    memory = int(cluster.memory)
    sizes = [40_000_000_000 if rank == 3 else 30_000_000_000 if rank == 6 else memory for rank in range(8)]
    other = "hbm_cap" if key == "ddr_cap" else "ddr_cap"
    rest = [int(cluster.device.ddr if other == "ddr_cap" else 0)] * 8
    topology = Topology(
        8, topology_of(cluster).compute_device, local_world_size=4, custom_topology_data=CustomTopologyData({key: sizes, other: rest}, 8)
    )
    named = [(f"table{number}", rules[one.name]) for number, one in enumerate(described.tables)]
    module = meta_module([MetaTable(name, 1, 4, rule.lookup) for name, rule in named], "sgd")
    constraints = {name: constraint_of(rule.lookup, rule.batch_size) for name, rule in named}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reserve = HeuristicalStorageReservation(RESERVED, dense_tensor_estimate=6 * described.dense_bytes + 1)
    devices = reserve.reserve(topology, 512, module, sharders(), constraints).devices
    what = key.removesuffix("_cap")
    np.testing.assert_allclose(getattr(found, what), [getattr(one.storage, what) for one in devices], atol=2)


def test_a_plan_heeds_each_rank_s_memory_and_leaves_ranks_out(tmp_path):
    cluster = cluster_of(tmp_path, "{base: h100, memory_of: {0: 30e9, 5: 35e9}, without: [2, 7]}")
    plan = model().plan(cluster)
    assert cluster_from_json(json.loads(json.dumps(plan["cluster"])), "test") == cluster
    held = {shard["rank"] for row in plan["tables"].values() for shard in row["shards"]}
    assert held
    assert not held & {2, 7}
    assert {row["sharding_type"] for row in plan["tables"].values()} <= {"table_wise", "column_wise", "table_column_wise"}
    write_plan(str(tmp_path / "plan.json"), plan)
    figures = figures_of(read_plan(str(tmp_path / "plan.json")), "plan")
    for rank, most in ((0, 30e9), (5, 35e9), (1, cluster.memory)):
        one = figures.ranks[rank]
        assert one.reserved + one.memory + one.free == pytest.approx(most, abs=2)
        assert one.free >= 0
    assert figures.ranks[2].memory == figures.ranks[7].memory == 0
    assert figures.mean_ms == pytest.approx(sum(one.time_ms for one in figures.ranks) / 6)
    assert all(one.passed for one in check.findings(figures, check.Limits(min_headroom=0.01)))
    text = show.plan_document(figures).text()
    assert "left out" in text
    assert "rank 0 30 GB" in text
    assert max(map(len, text.splitlines())) <= 100


def test_less_memory_on_one_rank_is_a_plan_that_equal_ranks_do_not_give(tmp_path):
    described = model("sharding.types=[table_wise]")
    small = described.plan(cluster_of(tmp_path, "{base: h100, memory_of: {1: 36e9}}"))
    equal = described.plan(cluster_of(tmp_path, "{base: h100}"))

    def most(plan):
        return figures_of(plan, "test").ranks[1].memory

    assert most(small) < most(equal)
    assert figures_of(small, "test").ranks[1].free >= 0
    # The equal plan's shards on the unequal cluster are told not to fit.
    moved = copy.deepcopy(equal) | {"cluster": small["cluster"], "room": small["room"]}
    (fits, *_) = check.findings(figures_of(moved, "test"), check.Limits())
    assert [rank for rank, _ in fits.offending] == [1]


def test_types_with_shards_on_all_ranks_cannot_be(tmp_path):
    some = cluster_of(tmp_path, "{base: h100, without: [2]}")
    rules = rules_for(model().tables, parse_config(CONFIG, "test"), some)["C0"]
    assert {"data_parallel", "row_wise"} == {kind for kind, why in rules.reasons if "rank 2" in why}
    assert "table_row_wise" in rules.types
    every = cluster_of(tmp_path, "{base: h100, without: [2, 4]}")
    rules = rules_for(model().tables, parse_config(CONFIG, "test"), every)["C0"]
    assert not {"table_row_wise", "grid_shard"} & set(rules.types)
    for overrides, named in (
        ({"sharding.types=[row_wise]"}, "row_wise|sharding.types"),
        ({"sharding.tables.C1.types=[row_wise]"}, r"sharding\.tables\.C1\.types: row_wise"),
        ({"sharding.tables.C1.ranks=[2]"}, r"sharding\.tables\.C1\.ranks: rank 2"),
    ):
        with pytest.raises(UserError, match=named):
            rules_for(model().tables, parse_config(CONFIG, "test", list(overrides)), some)


def test_hosts_that_are_whole_hold_tables_cut_by_rows_of_a_host(tmp_path):
    cluster = cluster_of(tmp_path, "{base: h100, without: [2]}")
    plan = model("sharding.types=[table_row_wise]").plan(cluster)
    assert {shard["rank"] for row in plan["tables"].values() for shard in row["shards"]} == {4, 5, 6, 7}


@pytest.mark.parametrize("kind", ["table_wise", "row_wise", "data_parallel"])
def test_a_file_with_a_table_on_a_rank_that_is_left_out_is_refused(kind):
    shards = {"table_wise": [(0, 0, 10, 8, 1)], "row_wise": [(0, 0, 5, 8, 0), (5, 0, 5, 8, 1)], "data_parallel": []}[kind]
    plan = plan_of({"T": table(10, 8, kind, *shards)}, "1x2:cpu")
    plan["cluster"]["without"] = [1]
    with pytest.raises(UserError, match=r"plan.json: table 'T': .*1"):
        check_plan(plan, "plan.json")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{memory_of: {8: 40e9}}", "memory_of: rank 8"),
        ("{memory_of: {3: 40}}", "memory_of: rank 3"),
        ("{memory_of: {3: much}}", "memory_of: rank 3"),
        ("{memory_of: [3]}", "memory_of"),
        ("{memory_of: {three: 40e9}}", "memory_of"),
        ("{without: [8]}", "without: rank 8"),
        ("{without: 7}", "without"),
        ("{without: [true]}", "without"),
        ("{without: [0, 1, 2, 3, 4, 5, 6, 7]}", "without: .*all 8"),
        ("{witout: [1]}", "witout.*without"),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path, text, named):
    with pytest.raises(UserError, match=named):
        cluster_of(tmp_path, text)


def test_a_rank_without_memory_for_the_dense_part_is_named(tmp_path):
    config = "train.batch_size=20000000"
    with pytest.raises(DoesNotFit, match="rank 1"):
        model(config).plan(cluster_of(tmp_path, f"{{base: h100, memory_of: {{1: {GIB}}}}}"))


def test_an_equal_cluster_is_kept_as_it_always_was():
    assert set(parse_cluster("2x4:h100").as_json()) == {"nodes", "ranks_a_node", "device"}


def test_planner_of_any_module_takes_the_same_file(tmp_path):
    from torchrec.modules.embedding_configs import EmbeddingBagConfig
    from torchrec.modules.embedding_modules import EmbeddingBagCollection

    configs = [EmbeddingBagConfig(name=f"t{i}", num_embeddings=1000 + i, embedding_dim=64, feature_names=[f"f{i}"]) for i in range(6)]
    bags = nn.ModuleDict({"bags": EmbeddingBagCollection(configs, device="meta")})
    plan = dmoe.Planner(cluster_of(tmp_path, "{base: cpu, without: [1]}", "1x3"), batch_size=300).plan(bags)
    assert {rank for one in plan.plan["bags"].values() for rank in one.ranks} == {0, 2}
