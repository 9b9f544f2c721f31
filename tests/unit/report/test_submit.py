"""The runs of a ladder as jobs of torchx: those that are not finished, each to resume where it was."""

import subprocess
from pathlib import Path

import pytest

from dmoe.errors import UserError
from dmoe.report.ladder import runner as trainer
from dmoe.report.ladder.runner import Job, submit_all


def jobs(folder: Path) -> list[Job]:
    made = [Job("me", seed, f"{folder}/me-{seed}.yaml", f"{folder}/me-{seed}") for seed in range(3)]
    (folder / "me-1").mkdir()
    (folder / "me-1/metrics.json").write_text("{}")
    return made


def test_only_unfinished_runs_are_handed_over(tmp_path, monkeypatch):
    commands = []

    def run(command, **_):
        commands.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(trainer.subprocess, "run", run)
    submit_all(jobs(tmp_path), "slurm", ["--j=1x8", "--h=h100x8"], lambda _: None)
    assert [command[command.index("--config") + 1] for command in commands] == [f"{tmp_path}/me-0.yaml", f"{tmp_path}/me-2.yaml"]
    for command in commands:
        assert command[1:5] == ["run", "--scheduler", "slurm", "launch/components.py:train"]
        assert command[-4:] == ["--resume", "True", "--j=1x8", "--h=h100x8"]
        assert command[command.index("--run") + 1] == command[command.index("--config") + 1].removesuffix(".yaml")


def test_a_run_that_torchx_refuses_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(trainer.subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 1))
    with pytest.raises(UserError, match=r"torchx .*me, seed 0 .*exit code 1"):
        submit_all(jobs(tmp_path), "slurm", [], lambda _: None)
