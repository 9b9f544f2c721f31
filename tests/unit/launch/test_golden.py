"""What each scheduler would be sent for the README's cluster command is kept in golden/ and compared.

Made anew by `DMOE_WRITE_GOLDEN=1 pytest tests/unit/launch/test_golden.py`; read the difference before it is committed.
"""

import os
import re
from pathlib import Path

import pytest

from tests.unit.launch.render import CLUSTER, FURTHER, GOLDEN, IMAGE, SCHEDULERS, VOLUMES, app_of, readme_command, request_of, text_of

# This machine does not see the cluster's data, and is told not to look for it.
FAR = ["--elsewhere", "True"]
EVALUATE = ["--run", "/runs/first", "--data", "/data/later", "--split", "test", "--j", "2x8", "--h", "h100x8", "--elsewhere", "True"]
LADDER = ["--config", "configs/ladder_demo.yaml", "--output", "/runs/ladder", "--data", "/data/demo", "--seeds", "3", "--h", "cpu32"]
LADDER += ["--elsewhere", "True"]
OTHERS = {
    "slurm_train": [*CLUSTER, *FAR],
    "slurm_preprocess": [*readme_command("preprocess"), *FAR],
    "slurm_evaluate": EVALUATE,
    "slurm_ladder": [*LADDER, "--", "--jobs", "4"],
    "slurm_accept": ["--j", "2x8", "--h", "h100x8", "--folder", "/shared/accept", "--report", "/shared/accept.html"],
    "kubernetes_evaluate": [*EVALUATE, *IMAGE, *VOLUMES],
    "kubernetes_ladder": [*LADDER, *IMAGE, *VOLUMES, "--", "--jobs", "4"],
}
"""Component's arguments by the kept request, SCHEDULER_COMPONENT[_FURTHER]; slurm_train's and slurm_preprocess' are the README's."""


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[3])
    monkeypatch.delenv("LOGLEVEL", raising=False)


def rendered(scheduler: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    app = app_of("train", CLUSTER + FURTHER[scheduler])
    return text_of(scheduler, request_of(scheduler, app, monkeypatch, str(tmp_path)), str(tmp_path))


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_the_request_for_the_cluster_command_is_the_kept_one(scheduler, monkeypatch, tmp_path):
    text = rendered(scheduler, monkeypatch, tmp_path)
    kept = GOLDEN / f"{scheduler}.txt"
    if os.environ.get("DMOE_WRITE_GOLDEN"):
        kept.write_text(text)
    assert text == kept.read_text()


@pytest.mark.parametrize("name", OTHERS)
def test_the_request_of_another_component_is_the_kept_one(name, monkeypatch):
    scheduler, component, *_ = name.split("_")
    app = app_of(component, OTHERS[name])
    text = text_of(scheduler, request_of(scheduler, app, monkeypatch))
    kept = GOLDEN / f"{name}.txt"
    if os.environ.get("DMOE_WRITE_GOLDEN"):
        kept.write_text(text)
    assert text == kept.read_text()


@pytest.mark.parametrize("scheduler", [*SCHEDULERS, *OTHERS])
def test_a_kept_request_names_nothing_of_the_machine_that_made_it(scheduler):
    text = (GOLDEN / f"{scheduler}.txt").read_text()
    assert str(Path.cwd()) not in text
    assert not re.search(r"/(home|root|work|tmp|Users)/", text)
