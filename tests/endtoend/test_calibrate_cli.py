"""`tools/plan.py calibrate` as a person runs it: a run's own plan on two nodes of two, and mistakes in one line."""

import json
import subprocess
import sys

import pytest
import yaml

from dmoe.data.dataset.manifest import load_manifest
from dmoe.sharding.plan.plan_file import write_plan
from dmoe.sharding.planner.cluster import parse_cluster
from dmoe.sharding.planner.planning_model import describe
from dmoe.testing.small_data import make_data_set
from dmoe.testing.small_run import BASE, small_config


def calibrate(*words):
    return subprocess.run([sys.executable, "tools/plan.py", "calibrate", *map(str, words)], capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_run_is_measured_under_its_own_plan(tmp_path):
    (tmp_path / "data").mkdir()
    make_data_set(tmp_path / "data")
    types = "sharding.types=[table_row_wise, row_wise]"
    config = small_config(str(tmp_path / "data"), types)
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(yaml.safe_dump(BASE | {"sharding": {"types": ["table_row_wise", "row_wise"]}}))
    write_plan(str(run / "plan.json"), describe(config, load_manifest(str(tmp_path / "data"))).plan(parse_cluster("2x2:cpu")))
    done = calibrate(run, "--data", tmp_path / "data", "--steps", 2, "--json", "--write-cluster", tmp_path / "mine.yaml")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["exact"]
    assert len(told["ranks"]) == 4
    assert told["worst_sent_error"] < 0.02
    assert parse_cluster(f"2x2:{tmp_path / 'mine.yaml'}").device.name == "cpu-measured"
    # What the measured run says of a mistake comes through as one line; of one rank, which starts sooner.
    write_plan(str(run / "plan.json"), describe(config, load_manifest(str(tmp_path / "data"))).plan(parse_cluster("1x1:cpu")))
    wrong = calibrate(run, "--data", tmp_path / "data", "--set", "model.embedding.dim=4")
    assert wrong.returncode == 2
    assert wrong.stderr.count("\n") == 1
    assert "the measured run: " in wrong.stderr


@pytest.mark.parametrize(
    ("words", "said"), [((), "say what to measure"), (("nowhere",), "no run there"), (("--measured", "nowhere"), "no such file")]
)
def test_mistakes_are_one_line(words, said):
    done = calibrate(*words)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
