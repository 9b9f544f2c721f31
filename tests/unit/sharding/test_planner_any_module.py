"""`dmoe.Planner` on models that are not dmoe's: what is read of them, what is refused, and what a plan says and keeps."""

import json

import pytest
import torch
from torch import nn
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.planner import EmbeddingShardingPlanner, ParameterConstraints
from torchrec.modules.embedding_configs import EmbeddingBagConfig, EmbeddingConfig
from torchrec.modules.embedding_modules import EmbeddingBagCollection, EmbeddingCollection
from torchrec.modules.fused_embedding_modules import FusedEmbeddingBagCollection
from torchrec.optim import RowWiseAdagrad
from torchrec.optim.apply_optimizer_in_backward import apply_optimizer_in_backward
from torchrec.types import DataType

import dmoe
from dmoe.cli.main import main
from dmoe.config.config import parse_config
from dmoe.sharding.plan.job_plan import plan_from_json
from dmoe.sharding.plan.plan_file import read_plan, write_plan
from dmoe.sharding.plan.sharders import sharders
from dmoe.sharding.planner.cluster import parse_cluster, topology_of
from dmoe.sharding.planner.planning_model import describe, manifest_of

META = torch.device("meta")


def bags(*sizes: tuple[str, int, int], weighted: bool = False, **more) -> EmbeddingBagCollection:
    tables = [
        EmbeddingBagConfig(name=name, num_embeddings=rows, embedding_dim=dim, feature_names=[f"{name}_ids"], **more)
        for name, rows, dim in sizes
    ]
    return EmbeddingBagCollection(tables, is_weighted=weighted, device=META)


def model() -> nn.ModuleDict:
    sequence = EmbeddingConfig(name="history", num_embeddings=100_000, embedding_dim=64, feature_names=["clicked", "bought"])
    return nn.ModuleDict(
        {
            "user": bags(("id", 1_000_000, 64), ("age", 100, 64)),
            "item": nn.ModuleDict({"bags": bags(("id", 300_000, 128), weighted=True)}),
            "past": EmbeddingCollection([sequence], device=META),
            "over": nn.Linear(10, 1, device=META),
        }
    )


def test_tables_of_all_collections_are_planned_under_names_that_tell_them_apart():
    plan = dmoe.Planner("2x4:h100", batch_size=4096).plan(model())
    assert set(plan.plan) == {"user", "item.bags", "past"}
    assert set(plan.kept["tables"]) == {"user.id", "age", "item.bags.id", "history"}
    history = plan.kept["tables"]["history"]
    assert (history["lookup"]["pooled"], history["lookup"]["ids"]) == (False, [1.0, 1.0])
    assert history["sharding_type"] in ("data_parallel", "table_wise", "column_wise", "row_wise")
    assert plan.kept["tables"]["item.bags.id"]["lookup"]["weighted"]
    for path, tables in plan.plan.items():
        for name, one in tables.items():
            (row,) = [row for row in plan.kept["tables"].values() if (row["path"], row["parameter"]) == (path, name)]
            assert one.sharding_type == row["sharding_type"]
            if one.sharding_spec is not None:
                cells = sum(shard.shard_sizes[0] * shard.shard_sizes[1] for shard in one.sharding_spec.shards)
                assert cells == row["size"][0] * row["size"][1]


def test_a_plan_is_saved_read_shown_and_compared(tmp_path, capsys):
    planner = dmoe.Planner("1x4:a100-80", batch_size=1024)
    plan = planner.plan(model())
    plan.save(str(tmp_path / "plan.json"))
    again = dmoe.Plan.load(str(tmp_path / "plan.json"), model())
    assert again.kept == plan.kept
    assert again.plan == plan.plan
    assert "history" in plan.show()
    assert plan.why("age").startswith("age: 100 x 64")
    other = dmoe.Planner("1x4:a100-80", batch_size=1024, constraints={"age": ParameterConstraints(sharding_types=["row_wise"])})
    told = plan.diff(other.plan(model()))
    assert "age" in told
    # The commands read the same file.
    assert main(["plan", "show", str(tmp_path / "plan.json"), "--json"]) == 0
    assert {table["name"] for table in json.loads(capsys.readouterr().out)["tables"]} == set(plan.kept["tables"])
    assert main(["plan", "check", str(tmp_path / "plan.json"), "--max-imbalance", "100"]) == 0


def test_a_plan_for_a_config_is_loaded_for_its_model_wherever_that_is(tmp_path):
    path, sizes = str(tmp_path / "plan.json"), {"C1": 300_000, "C 2": 700, "C3": 50}
    config = parse_config("model: {embedding: {dim: 8}, experts: [mlp, mlp]}\ntrain: {batch_size: 512}", "config")
    described = describe(config, manifest_of(sizes, "sizes"))
    write_plan(path, described.plan(parse_cluster("1x4:a100-80")))
    network = dmoe.DMoE(sizes, experts=["mlp", "mlp"], dim=8)
    loaded = dmoe.Plan.load(path, network)
    # As dmoe.train makes it of the file.
    assert loaded.plan == plan_from_json(read_plan(path), network, described.tables, torch.device("cuda"), path).plan
    assert dmoe.Plan.load(path).plan == loaded.plan
    inside = dmoe.Plan.load(path, nn.ModuleDict({"ctr": network}))
    assert {f"ctr.{name}": tables for name, tables in loaded.plan.items()} == inside.plan
    assert "C 2" in loaded.show()
    loaded.save(str(tmp_path / "again.json"))
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "plan.json").read_bytes()
    with pytest.raises(dmoe.UserError, match=r"plan\.json: table 'C 2' .*700x16.*800x16"):
        dmoe.Plan.load(path, dmoe.DMoE(sizes | {"C 2": 800}, experts=["mlp", "mlp"], dim=8))


def test_constraints_are_kept_by_name_and_by_pattern():
    constraints = {
        "*": ParameterConstraints(sharding_types=["row_wise"]),
        "user.id": ParameterConstraints(sharding_types=["column_wise"], min_partition=16, pooling_factors=[20.0]),
        "history": ParameterConstraints(pooling_factors=[7.0, 3.0], sharding_types=["table_wise"]),
    }
    tables = dmoe.Planner("1x4:h100", batch_size=1024, constraints=constraints).plan(model()).kept["tables"]
    assert {name: row["sharding_type"] for name, row in tables.items()} == {
        "user.id": "column_wise",
        "age": "row_wise",
        "item.bags.id": "row_wise",
        "history": "table_wise",
    }
    assert tables["user.id"]["pooling_factor"] == 20
    assert tables["history"]["pooling_factor"] == 10


def test_the_optimizer_and_its_bytes_come_from_the_parameters():
    one = bags(("t", 1000, 64))
    apply_optimizer_in_backward(RowWiseAdagrad, one.parameters(), {"lr": 0.1})
    plan = dmoe.Planner("1x4:h100", batch_size=1024).plan(one)
    row = plan.kept["tables"]["t"]
    assert plan.kept["optimizer"] == "rowwise_adagrad"
    assert (row["weight_bytes"], row["state_bytes"]) == (1000 * 64 * 4, 1000 * 4)
    assert row["sharding_type"] not in ("column_wise", "table_column_wise", "grid_shard")
    half = dmoe.Planner("1x4:h100", batch_size=1024).plan(bags(("t", 1000, 64), data_type=DataType.FP16))
    assert half.kept["tables"]["t"]["weight_bytes"] == 1000 * 64 * 2


def test_kernel_settings_go_to_the_kernels():
    constraint = ParameterConstraints(sharding_types=["table_wise"], stochastic_rounding=False)
    plan = dmoe.Planner("1x4:h100", batch_size=64, constraints={"t": constraint}).plan(bags(("t", 1000, 64)))
    assert plan.plan[""]["t"].stochastic_rounding is False


@pytest.mark.filterwarnings("ignore:HeuristicalStorageReservation:FutureWarning")
def test_a_plan_of_torchrecs_planner_is_judged_by_the_same_figures():
    cluster = parse_cluster("2x4:h100")
    made = EmbeddingShardingPlanner(topology_of(cluster), batch_size=512).plan(model(), sharders())
    planner = dmoe.Planner("2x4:h100", batch_size=4096)
    theirs, ours = planner.describe(model(), made), planner.plan(model())
    assert theirs.plan == made.plan
    assert ours.figures.time_ms <= theirs.figures.time_ms * (1 + 1e-9)
    assert theirs.diff(ours)


@pytest.mark.parametrize(
    ("module", "constraints", "named"),
    [
        (nn.Linear(2, 2), {}, "nothing to plan"),
        (bags(("t", 10, 6)), {}, "dim is 6"),
        (bags(("t", 10, 8), data_type=DataType.INT8), {}, "INT8"),
        (bags(("table", 10, 8)), {"tabel": ParameterConstraints()}, "'table'"),
        (bags(("t", 10, 8)), {"t": ParameterConstraints(num_poolings=[2.0])}, "num_poolings"),
        (bags(("t", 10, 8)), {"t": ParameterConstraints(pooling_factors=[1.0, 2.0])}, "pooling_factors"),
        (bags(("t", 10, 8)), {"t": ParameterConstraints(compute_kernels=["key_value"])}, "key_value"),
        (
            nn.ModuleDict(
                {
                    "odd": FusedEmbeddingBagCollection(
                        [EmbeddingBagConfig(name="t", num_embeddings=10, embedding_dim=8, feature_names=["f"])],
                        torch.optim.SGD,
                        {"lr": 0.1},
                        device=META,
                    )
                }
            ),
            {},
            "odd: a FusedEmbeddingBagCollection",
        ),
    ],
)
def test_what_cannot_be_planned_is_named(module, constraints, named):
    with pytest.raises(dmoe.UserError, match=named):
        dmoe.Planner("1x4:h100", batch_size=64, constraints=constraints).plan(module)


def test_a_plan_of_another_model_is_refused(tmp_path):
    path = str(tmp_path / "plan.json")
    dmoe.Planner("1x4:h100", batch_size=64).plan(bags(("t", 10, 8))).save(path)
    with pytest.raises(dmoe.UserError, match=r"plan\.json: table 't' .*10x8.*11x8"):
        dmoe.Plan.load(path, bags(("t", 11, 8)))
    with pytest.raises(dmoe.UserError, match="table 'u'"):
        dmoe.Plan.load(path).why("u")


def test_sharders_say_which_types_a_cpu_may_use():
    asked = dmoe.Planner("1x2:cpu", batch_size=64)
    tables = {"t": ParameterConstraints(pooling_factors=[1.0])}
    default = {one["what"] for one in asked.plan(bags(("t", 1000, 64))).kept["tables"]["t"]["tried"]}
    theirs = dmoe.Planner("1x2:cpu", batch_size=64, constraints=tables).plan(bags(("t", 1000, 64)), [EmbeddingBagCollectionSharder()])
    assert "row_wise" in default
    assert not {one["what"] for one in theirs.kept["tables"]["t"]["tried"]} & {"row_wise", "table_row_wise", "grid_shard"}
