"""A launch's mistakes show in its rehearsal, on this machine, each in one line and with its exit code; a sound launch passes."""

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from dmoe.config.config import parse_config
from dmoe.errors import UserError
from dmoe.sharding.plan.plan_file import write_plan
from dmoe.sharding.planner.cluster import PRESETS, Cluster, parse_cluster
from dmoe.sharding.planner.planning_model import describe, load_sizes
from dmoe.testing.small_data import make_data_set
from dmoe.train.rehearsal.local_launch import RunFailed
from dmoe.train.rehearsal.rehearse import look, run_ranks

TREE = {
    "model": {"embedding": {"dim": 32}, "experts": ["crossnet", {"kind": "mlp", "hidden": [16]}], "expert_dim": 8},
    "train": {"batch_size": 256},
    "sharding": {"types": ["row_wise", "table_row_wise", "grid_shard", "table_column_wise", "table_wise", "column_wise"]},
}


@pytest.fixture(scope="module")
def launch(tmp_path_factory):
    """A launch on 4 x 4 GPUs whose plan has a table of each of five types."""
    folder = tmp_path_factory.mktemp("launch")
    make_data_set(folder / "data", cardinalities=(4000, 3000, 2500, 600, 50))
    types = ["row_wise", "table_row_wise", "grid_shard", "table_column_wise", "table_wise"]
    tables = {f"C{number + 1}": {"types": [kind]} for number, kind in enumerate(types)}
    tree = TREE | {"sharding": {"tables": tables}, "data": {"path": f"{folder}/data"}}
    (folder / "config.yaml").write_text(yaml.safe_dump(tree))
    config = parse_config((folder / "config.yaml").read_text(), "test")
    write_plan(f"{folder}/plan.json", describe(config, load_sizes(config, None)).plan(parse_cluster("4x4:h100")))
    return folder


def looked_at(folder: Path, *overrides: str) -> list[tuple[str, str]]:
    config = parse_config((folder / "config.yaml").read_text(), "test", list(overrides))
    told: list[tuple[str, str]] = []
    plan = json.loads((folder / "plan.json").read_text())
    look(config, plan, "plan.json", describe(config, load_sizes(config, None)), lambda how, what: told.append((how, what)))
    return told


def test_what_is_in_order_is_said(launch, tmp_path):
    told = looked_at(launch, f"run.dir={tmp_path}/runs/first")
    assert [how for how, _ in told] == ["ok", "ok", "ok"]
    assert "4x4:h100" in told[0][1]
    assert "train 3,000" in told[1][1]
    # The look leaves nothing behind.
    assert list(tmp_path.iterdir()) == []
    assert ("--", "run.dir: not given, so it was not looked at") in looked_at(launch)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("model.embedding.dim=16", "table 'C1' is 4,000 x 64 there and 4,000 x 32 in the model"),
        ("optimizer.tables.kind=sgd", "made for optimizer.tables.kind adagrad, this run has sgd"),
        ("data.features=[C1, C2]", "table 'C3' is not in the model"),
        ("data.validation_split=valid", "no split 'valid', did you mean 'validation'"),
        ("train.batch_size=15", "15 rows for 16 ranks"),
    ],
)
def test_a_plan_or_config_that_does_not_fit_the_launch_is_named(launch, override, said):
    with pytest.raises(UserError, match=said):
        looked_at(launch, override)


def test_data_that_is_not_what_its_manifest_says_is_named(launch, tmp_path):
    make_data_set(tmp_path / "data", cardinalities=(4000, 3000, 2500, 600, 50))
    manifest = json.loads((tmp_path / "data" / "manifest.json").read_text())
    (tmp_path / "data" / manifest["splits"]["test"]["shards"][0]["path"]).unlink()
    with pytest.raises(UserError, match=r"part-00000\.parquet: missing"):
        looked_at(launch, f"data.path={tmp_path}/data")


def test_a_run_directory_that_cannot_be_written_or_holds_a_run_is_named(launch, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"run\.dir: .*file/run"):
        looked_at(launch, f"run.dir={tmp_path}/file/run")
    (tmp_path / "config.yaml").write_text("")
    with pytest.raises(UserError, match=rf"run\.dir: .*{tmp_path}"):
        looked_at(launch, f"run.dir={tmp_path}")
    if os.geteuid():
        (tmp_path / "closed").mkdir()
        (tmp_path / "closed").chmod(stat.S_IRUSR | stat.S_IXUSR)
        with pytest.raises(UserError, match=r"run\.dir: .*closed"):
            looked_at(launch, f"run.dir={tmp_path}/closed")


def test_what_the_rehearsed_run_says_is_passed_on(tmp_path):
    alone = Cluster(1, 1, PRESETS["cpu"])
    (tmp_path / "config.yaml").write_text("train: {batchsize: 3}")
    with pytest.raises(UserError, match=r"the rehearsed run: .*train\.batchsize: .*'batch_size'"):
        run_ranks(str(tmp_path), alone, 900)
    with pytest.raises(RunFailed, match=r" 0\.2 s"):
        run_ranks(str(tmp_path), alone, 0.2)


@pytest.mark.slow
def test_a_rehearsal_of_four_nodes_on_two_of_two_ranks(launch, tmp_path):
    command = [sys.executable, "tools/plan.py", "rehearse", "--config", f"{launch}/config.yaml", "--plan", f"{launch}/plan.json"]
    command += ["--ranks", "4", "--steps", "2", "--set", f"run.dir={tmp_path}/run"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for kind in ("row_wise", "table_row_wise", "grid_shard", "table_column_wise", "table_wise"):
        assert f"1 {kind}" in done.stdout
    assert re.search(r"\b2 steps on 2 node.* 2 ranks", done.stdout)
    # A plan for another model ends it before anything runs, in one line.
    done = subprocess.run([*command, "model.embedding.dim=16"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
