"""Each constraint on tables decides the plan that is made, by name, by pattern and inline; what cannot be is refused by name."""

import json
import re

import pytest

from dmoe.cli.main import main
from dmoe.config.config import override_key, parse_config
from dmoe.errors import UserError
from dmoe.sharding.planner.cluster import parse_cluster
from dmoe.sharding.planner.planning_model import describe, manifest_of

CONFIG = """
model: {embedding: {dim: 64}, experts: [crossnet, {kind: mlp, hidden: [16]}], expert_dim: 8}
train: {batch_size: 8192}
"""
SIZES = {"C1": 2_000_000, "C2": 300_000, "C10": 40_000}


def plan(*overrides, cluster="2x2:h100"):
    """A plan of tables of 128 columns, two embeddings of 64 each."""
    return describe(parse_config(CONFIG, "test", list(overrides)), manifest_of(SIZES, "test")).plan(parse_cluster(cluster))


def types(made):
    return {name: row["sharding_type"] for name, row in made["tables"].items()}


FREE = plan()


@pytest.mark.parametrize(
    "kind", ["data_parallel", "table_wise", "column_wise", "row_wise", "table_row_wise", "table_column_wise", "grid_shard"]
)
def test_types_decide_one_tables_sharding_and_leave_the_others_free(kind):
    made = plan(f"sharding.tables.C2.types=[{kind}]")
    assert types(made)["C2"] == kind
    assert "sharding.tables.C2" in made["tables"]["C2"]["decided"]
    others = made["tables"]["C1"]["tried"]
    assert {row["what"] for row in others} == {row["what"] for row in FREE["tables"]["C1"]["tried"]}


def test_a_name_is_itself_before_it_is_a_pattern():
    sizes = {"C1*": 40_000, "C1": 40_000, "C12": 40_000, "tags[0]": 40_000, "tags0": 40_000, "site": 9000, "site__0": 9000}

    def of(*overrides):
        config = parse_config(CONFIG, "test", list(overrides))
        return types(describe(config, manifest_of(sizes, "test")).plan(parse_cluster("1x2:cpu")))

    free = of("sharding.types=[table_wise]")
    for name, also in (("C1*", ()), ("tags[0]", ()), ("site__0", ()), ("C1?", ("C1*", "C12")), ("tags[[]0]", ("tags[0]",))):
        key = override_key("sharding", "tables", name, "types")
        changed = of("sharding.types=[table_wise]", f"{key}=[row_wise]")
        assert {one for one in changed if changed[one] != free[one]} == set(also or (name,))
    changed = of("sharding.types=[table_wise]", "sharding.tables.site__0.types=[row_wise]", "model.embedding.layout=separate")
    assert {one for one in changed if changed[one] == "row_wise"} == {"site__0__0", "site__0__1"}


def test_a_pattern_means_all_that_match_and_a_later_entry_has_its_way():
    made = plan("sharding.tables={'C*': {types: [table_wise]}, 'C1*': {types: [row_wise]}, C10: {ranks: [3], types: [table_wise]}}")
    assert types(made) == {"C1": "row_wise", "C2": "table_wise", "C10": "table_wise"}
    assert [shard["rank"] for shard in made["tables"]["C10"]["shards"]] == [3]
    # A feature's name means its tables; in the separate layout one of them can be named too.
    made = plan("model.embedding.layout=separate", "sharding.tables={C2: {types: [row_wise]}, C1__1: {types: [table_row_wise]}}")
    assert (types(made)["C2__0"], types(made)["C2__1"]) == ("row_wise", "row_wise")
    assert types(made)["C1__1"] == "table_row_wise" != types(made)["C1__0"]


def test_kernels_decide_where_a_table_lies():
    for kernel in ("fused_uvm", "fused_uvm_caching"):
        made = plan(f"sharding.tables.C1.kernels=[{kernel}]")
        assert made["tables"]["C1"]["compute_kernel"] == kernel
        assert sum(rank["host_memory"] for rank in made["predicted"]["ranks"]) >= 2_000_000 * 128 * 4
    assert sum(rank["host_memory"] for rank in FREE["predicted"]["ranks"]) == 0
    with pytest.raises(UserError, match=r"C1.*fused_uvm"):
        plan("sharding.tables.C1.kernels=[fused_uvm]", cluster="1x2:cpu")


def test_min_partition_decides_the_width_of_column_shards():
    for width in (32, 64):
        made = plan(f"sharding.tables.C1={{types: [column_wise], min_partition: {width}}}")
        assert {shard["columns"] for shard in made["tables"]["C1"]["shards"]} == {width}
    with pytest.raises(UserError, match=r"min_partition: 48 .*\["):
        plan("sharding.tables.C1.min_partition=48")


def test_ranks_hold_all_shards():
    made = plan("sharding.tables.C1={ranks: [1, 2]}")
    assert {shard["rank"] for shard in made["tables"]["C1"]["shards"]} <= {1, 2}
    with pytest.raises(UserError, match=r"rank 4, .*2x2:h100 .*0 .*3"):
        plan("sharding.tables.C1={ranks: [4]}")
    with pytest.raises(UserError, match=r"ranks .*table_wise .*column_wise"):
        plan("sharding.tables.C1={ranks: [1], types: [row_wise]}")


def test_pooling_factor_and_batch_size_change_what_is_predicted_and_chosen():
    def read(made):
        return sum(rank["lookups"] for rank in made["predicted"]["ranks"])

    rows = "sharding.types=[row_wise]"
    # Ids of one table, 20 a row, of three with one each.
    assert read(plan(rows, "sharding.tables.C1.pooling_factor=20")) == pytest.approx(8192 * 22, rel=1e-3)
    # A table that half of the rows look up: 1,024 of a rank's 2,048.
    assert read(plan(rows, "sharding.tables.C1.batch_size=1024")) == pytest.approx(8192 * 2.5, rel=1e-3)
    # Heavy bags of a small table: sending ids and embeddings costs more than a copy on every rank, or the other way round.
    heavy, light = plan("sharding.tables.C10.pooling_factor=200"), plan("sharding.tables.C10.batch_size=1")
    assert heavy["tables"]["C10"]["time_ms"] > 10 * light["tables"]["C10"]["time_ms"]
    assert types(heavy)["C10"] != types(FREE)["C10"] or types(light)["C10"] != types(FREE)["C10"]


def test_inline_on_the_command_line_with_a_misspelt_table_named(tmp_path, capsys):
    (tmp_path / "c.yaml").write_text(CONFIG)
    (tmp_path / "s.yaml").write_text(json.dumps(SIZES))
    given = ["--config", f"{tmp_path}/c.yaml", "--cardinalities", f"{tmp_path}/s.yaml", "--cluster", "1x2:h100"]

    def make(*overrides):
        return main(["plan", "make", *given, "--output", f"{tmp_path}/p.json", "--set", *overrides])

    make("sharding.tables.C1.types=[row_wise]", "sharding.tables.C1*.kernels=[fused]")
    assert types(json.loads((tmp_path / "p.json").read_text()))["C1"] == "row_wise"
    for wrong, said in (
        ("sharding.tables.C22.types=[row_wise]", r"sharding.tables.C22: no such table, did you mean 'C2'"),
        ("sharding.tables.C1.typos=[row_wise]", "C1.typos: unknown key, did you mean 'types'"),
        ("sharding.tables.C1.types=[rowwise]", "'row_wise'"),
    ):
        assert make(wrong) == 2
        assert re.search(said, capsys.readouterr().err)
