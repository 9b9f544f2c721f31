"""The examples say nothing that torchx does not know: it would pass over a misspelt option in silence."""

import configparser
from pathlib import Path

import pytest
from torchx.schedulers import get_scheduler_factories

from tests.unit.launch.stand_ins import stand_in_for_ray

EXAMPLES = sorted((Path(__file__).parents[3] / "launch/torchxconfig").glob("*.ini"))


def test_there_is_an_example_for_each_scheduler():
    assert {path.stem for path in EXAMPLES} == {"local_cwd", "slurm", "kubernetes", "local_docker", "aws_batch", "ray"}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_names_its_scheduler_and_options_that_exist(path, monkeypatch):
    config = configparser.ConfigParser()
    config.read(path)
    assert config["cli:run"]["scheduler"] == path.stem
    assert set(config["cli:run"]) <= {"scheduler", "workspace"}
    if path.stem == "ray":
        stand_in_for_ray(monkeypatch)
    options = get_scheduler_factories()[path.stem](session_name="test").run_opts()
    assert all(options.get(key) for key in config[path.stem]), list(config[path.stem])
