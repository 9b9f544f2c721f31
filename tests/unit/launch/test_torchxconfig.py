"""The examples say nothing that torchx does not know: it would pass over a misspelt option in silence."""

import configparser
import subprocess
import sys
from pathlib import Path

import pytest
from torchx.schedulers import get_scheduler_factories

from dmoe.testing.small_data import make_data_set
from tests.unit.launch.stand_ins import stand_in_for_ray

ROOT = Path(__file__).parents[3]
EXAMPLES = {path.stem: path for path in sorted((ROOT / "launch/torchxconfig").glob("*.ini"))} | {"local_cwd": ROOT / ".torchxconfig"}


def test_there_is_an_example_for_each_scheduler():
    assert set(EXAMPLES) == {"local_cwd", "slurm", "kubernetes", "local_docker", "aws_batch", "ray"}


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_names_its_scheduler_and_options_that_exist(name, monkeypatch):
    config = configparser.ConfigParser()
    config.read(EXAMPLES[name])
    assert config["cli:run"]["scheduler"] == name
    assert set(config["cli:run"]) <= {"scheduler", "workspace"}
    if name == "ray":
        stand_in_for_ray(monkeypatch)
    options = get_scheduler_factories()[name](session_name="test").run_opts()
    assert all(options.get(key) for key in config[name]), list(config[name])


def test_a_launch_is_this_machine_s_where_no_scheduler_is_named(tmp_path):
    """torchx's own choice is docker, whose absence ends the launch in a traceback."""
    make_data_set(tmp_path)
    command = [
        "run",
        "--dryrun",
        "launch/components.py:train",
        "--config",
        "configs/demo.yaml",
        "--data",
        str(tmp_path),
        "--run",
        "runs/none",
    ]
    done = subprocess.run([Path(sys.executable).with_name("torchx"), *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "'num_replicas': 1" in done.stdout
    assert "dmoe.train" in done.stdout
