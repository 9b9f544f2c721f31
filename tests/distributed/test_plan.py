"""A plan made offline is what a run with it really shards by."""

import dataclasses
import json

import pytest
import torch

from dmoe import distributed
from dmoe.data.dataset.manifest import load_manifest
from dmoe.sharding.plan.local_shards import local_shards
from dmoe.sharding.plan.plan_file import write_plan
from dmoe.sharding.plan.report.plan_stats import figures_of
from dmoe.sharding.plan.report.show import plan_document
from dmoe.sharding.planner.cluster import parse_cluster
from dmoe.sharding.planner.planning_model import describe
from dmoe.testing.small_run import open_small, small_config, train_steps

CLUSTERS = {2: "1x2:cpu", 4: "2x2:cpu"}
TYPES = "sharding.types=[row_wise, column_wise, table_row_wise, table_wise]"


def held(data: str, plan: str) -> list[tuple[str, int, int, int, int, int]]:
    """What this rank's kernels hold under a kept plan, after a step: table, row, column, rows, columns, rank."""
    session = open_small(small_config(data, TYPES, f"sharding.plan={plan}"))
    train_steps(session, 1)
    return [
        (shard.table.name, shard.row, shard.column, *shard.weight.shape, distributed.rank())
        for shard in local_shards(session.sharded, session.tables)
        if shard.weight.numel()
    ]


def refused(data: str, plan: str, *overrides: str) -> str:
    try:
        open_small(small_config(data, TYPES, f"sharding.plan={plan}", *overrides))
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "taken"


@pytest.mark.parametrize("world_size", CLUSTERS)
def test_a_run_shards_exactly_as_planned_offline(ranks, data_set, tmp_path, world_size):
    plan = describe(small_config(data_set, TYPES), load_manifest(data_set)).plan(parse_cluster(CLUSTERS[world_size]))
    path = str(tmp_path / "plan.json")
    write_plan(path, plan)
    planned = {
        (name, *(shard[key] for key in ("row", "column", "rows", "columns", "rank")))
        for name, table in json.loads((tmp_path / "plan.json").read_text())["tables"].items()
        for shard in table["shards"]
        if shard["rows"] and shard["columns"]
    }
    results = ranks(world_size).run(held, data_set, path)
    assert {tuple(int(x) if isinstance(x, torch.SymInt) else x for x in shard) for result in results for shard in result} == planned
    # What the plan says that each rank holds in weights is what it holds.
    for rank, told in enumerate(plan["predicted"]["ranks"]):
        assert told["weights"] == sum(4 * rows * columns for _, _, _, rows, columns, _ in results[rank])


def test_a_run_trains_with_a_rank_that_holds_no_table(ranks, data_set, tmp_path):
    cluster = dataclasses.replace(parse_cluster("1x2:cpu"), without=(1,))
    plan = describe(small_config(data_set, TYPES), load_manifest(data_set)).plan(cluster)
    write_plan(str(tmp_path / "plan.json"), plan)
    first, second = ranks(2).run(held, data_set, str(tmp_path / "plan.json"))
    assert {shard[0] for shard in first} == set(plan["tables"])
    assert second == []


def test_a_plan_for_something_else_is_refused(ranks, data_set, tmp_path):
    path = str(tmp_path / "plan.json")
    write_plan(path, describe(small_config(data_set, TYPES), load_manifest(data_set)).plan(parse_cluster("2x2:cpu")))
    for message in ranks(2).run(refused, data_set, path):
        assert message.startswith("UserError: ")
    write_plan(path, describe(small_config(data_set, TYPES), load_manifest(data_set)).plan(parse_cluster("1x2:cpu")))
    for message in ranks(2).run(refused, data_set, path, "model.embedding.dim=4"):
        assert message.startswith("UserError: ")


def test_what_show_says_names_every_rank_and_table(data_set):
    plan = describe(small_config(data_set, TYPES), load_manifest(data_set)).plan(parse_cluster("2x2:cpu"))
    text = plan_document(figures_of(plan, "plan")).text()
    assert all(len(line) <= 100 for line in text.splitlines())
    assert all(name in text for name in plan["tables"])
    assert text.count(" ms  #") == 4
    assert "critical" in text
