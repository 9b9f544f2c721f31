"""A run, one that begins from it on grown tables, and that one resumed: by the command."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dmoe.checkpoint.index import read_index
from dmoe.testing.small_data import make_data_set


def train(data: Path, run: Path, *arguments: str, steps: int) -> str:
    settings = [f"data.path={data}", f"run.dir={run}", f"train.max_steps={steps}", "train.batch_size=64", "train.guard={enabled: false}"]
    command = [sys.executable, "-m", "dmoe.train", "--config", "configs/demo.yaml", *arguments, "--set", *settings]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.slow
def test_a_run_begins_from_another_on_grown_tables_and_is_resumed(tmp_path: Path):
    rows = {"train": 600, "validation": 100, "test": 100}
    make_data_set(tmp_path / "old", rows)
    make_data_set(tmp_path / "grown", rows, cardinalities=(41, 30, 25, 70))
    first, second = tmp_path / "first", tmp_path / "second"
    train(tmp_path / "old", first, steps=3)
    begin = ("--init-from", str(first))
    said = train(tmp_path / "grown", second, *begin, steps=2)
    assert f"begins from {first}/checkpoints/step-000000003: 11 new ids in 2 of 4 features" in said
    said = train(tmp_path / "grown", second, *begin, "--resume", steps=4)
    assert "resuming from step 2" in said
    assert "begins from" not in said
    progress = read_index(f"{second}/checkpoints/step-000000004").progress
    assert (progress["step"], progress["steps_before"], progress["trained_rows"]) == (4, 3, 256)
    assert json.loads((second / "metrics.json").read_text())["steps"] == 4
