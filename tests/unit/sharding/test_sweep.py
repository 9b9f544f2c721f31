"""A sweep's points are the plans that `make` would make; its knee is where the definition says."""

import csv
import dataclasses
import json
import re

import pytest

from dmoe.cli.main import main
from dmoe.config.config import parse_config
from dmoe.data import progress
from dmoe.sharding.planner.advice.sweep import Point, as_records, knees, sweep
from dmoe.sharding.planner.advice.sweep_page import sweep_document
from dmoe.sharding.planner.cluster import GIB, PRESETS, Cluster, parse_cluster
from dmoe.sharding.planner.cost.step_time import PASSES, Step, dense_ms
from dmoe.sharding.planner.planning_model import describe, manifest_of

CONFIG = """
model: {embedding: {dim: 16}, experts: [crossnet, {kind: mlp, hidden: [16]}], expert_dim: 8}
train: {batch_size: 4096, precision: bf16}
"""
SIZES = {"C1": 600_000, "C2": 3000, "C3": 1000}


def config(*overrides):
    return parse_config(CONFIG, "test", list(overrides))


def manifest():
    return manifest_of(SIZES, "test")


def test_every_point_is_the_plan_that_make_makes():
    clusters = [parse_cluster("1x2:h100"), parse_cluster("2x2:h100")]
    points = sweep(config(), manifest(), clusters, [4096, 8192], [1, 3], ["wide"])
    assert len(points) == 8
    for point in points:
        # The config has two experts: the third is the first one again.
        chosen = ["crossnet", {"kind": "mlp", "hidden": [16]}, "crossnet"][: point.experts]
        same = config(f"train.batch_size={point.batch_size}", "model.embedding.layout=wide", f"model.experts={json.dumps(chosen)}")
        model = describe(same, manifest())
        plan = model.plan(point.cluster, explain=False)
        assert point.step.tables_ms == plan["predicted"]["time_ms"]
        assert point.step.memory == max(rank["memory"] for rank in plan["predicted"]["ranks"])
        assert point.step.ms == point.step.tables_ms + dense_ms(model, point.cluster)
        assert point.step.usd_a_billion == pytest.approx(
            1e9 / (point.batch_size / point.step.ms * 1000) / 3600 * point.cluster.ranks * PRESETS["h100"].usd_an_hour
        )


def test_a_point_that_does_not_fit_or_is_refused_is_shown_as_such():
    tiny = Cluster(1, 1, dataclasses.replace(PRESETS["a100-40"], name="tiny", hbm=1.05 * GIB, ddr=0.01 * GIB))
    big = {"C1": 20_000_000}
    (point,) = sweep(config(), manifest_of(big, "test"), [tiny], [], [], [])
    assert point.step is None
    assert "does not fit" in sweep_document([point], "").text()
    assert "5.12 GB" in point.problem  # 20M x 2 sets x 16 x 4 bytes, and Adagrad's state
    (point,) = sweep(config("optimizer.tables.kind=rowwise_adagrad"), manifest(), [parse_cluster("1x2:h100")], [], [], ["wide"])
    assert point.problem.startswith("refused: ")
    assert as_records([point])[0]["step_ms"] is None


def at(nodes: int, samples_per_second: float) -> Point:
    step = Step(nodes * 8, 1000, 1e6 / samples_per_second, 0.0, 1, 2.0, 0, 1.0)
    return Point(Cluster(nodes, 8, PRESETS["h100"]), 1000, 2, "wide", step, "", 0.0)


def test_the_knee_is_where_a_rank_does_less_than_half_of_the_best_ones_work():
    (knee,) = knees([at(1, 100), at(2, 180), at(8, 300), at(4, 300)])
    assert knee.efficiencies == pytest.approx([1.0, 0.9, 0.75, 0.375])
    assert (knee.last.name, knee.first_beyond.name) == ("4x8:h100", "8x8:h100")
    # A small cluster that is slow because its tables lie in host memory is no knee.
    (knee,) = knees([at(1, 10), at(2, 200), at(4, 390)])
    assert knee.last is None
    assert "beyond 32 ranks" in sweep_document([at(1, 100), at(2, 180), at(4, 300), at(8, 300)], "").text()


def test_the_dense_part_is_flops_over_speed_and_an_exchange_that_the_backward_pass_hides():
    model = describe(config(), manifest())
    one = parse_cluster("1x1:h100")
    forward = 1000 * model.flops * 4096 / one.device.flops
    assert dense_ms(model, one) == pytest.approx(PASSES * forward)
    assert dense_ms(describe(config("train.precision=fp32"), manifest()), one) == pytest.approx(15 * PASSES * forward)
    slow = dataclasses.replace(one.device, network=1e6)
    exposed = dense_ms(model, Cluster(2, 1, slow)) - PASSES * forward / 2
    assert exposed == pytest.approx(1000 * model.dense_bytes / 1e6 - (PASSES - 1) * forward / 2)


def test_the_command_prints_a_table_and_writes_csv_and_a_self_contained_page(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(progress, "LOG_SECONDS", 0.0)
    (tmp_path / "c.yaml").write_text(CONFIG)
    (tmp_path / "s.yaml").write_text(json.dumps(SIZES))
    arguments = ["--config", f"{tmp_path}/c.yaml", "--cardinalities", f"{tmp_path}/s.yaml", "--clusters", "1x2:h100,2x2:h100"]
    outputs = ["--output", f"{tmp_path}/out.csv", "--html", f"{tmp_path}/out.html"]
    words = ["plan", "sweep", *arguments, *outputs]
    assert main(words) == 0
    told = capsys.readouterr()
    assert "2x2:h100" in told.out
    assert "sweep: 2 points, 100%" in told.err
    assert all(len(line) <= 110 for line in told.out.splitlines()[:3])
    rows = list(csv.DictReader((tmp_path / "out.csv").open()))
    assert [row["cluster"] for row in rows] == ["1x2:h100", "2x2:h100"]
    assert float(rows[0]["efficiency"]) == 1.0
    page = (tmp_path / "out.html").read_text()
    assert page.count("<svg") == 4
    assert not re.search(r"(src|href)=['\"]https?:", page)


@pytest.mark.parametrize(
    ("flag", "value", "said"),
    [
        ("--clusters", "1x2:h10", "did you mean 'h100'"),
        ("--experts", "0", "no whole number"),
        ("--layouts", "wid", "did you mean 'wide'"),
        ("--set", "sharding.tables.C11.types=[row_wise]", "did you mean 'C1'"),
    ],
)
def test_mistakes_in_the_grid_are_named(tmp_path, capsys, flag, value, said):
    (tmp_path / "c.yaml").write_text(CONFIG)
    (tmp_path / "s.yaml").write_text(json.dumps(SIZES))
    arguments = {"--config": f"{tmp_path}/c.yaml", "--cardinalities": f"{tmp_path}/s.yaml", "--clusters": "1x2:h100"} | {flag: value}
    words = ["plan", "sweep", *[part for pair in arguments.items() for part in pair]]
    assert main(words) == 2
    assert re.search(said, capsys.readouterr().err)
