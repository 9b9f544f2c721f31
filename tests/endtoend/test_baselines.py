"""A short training of each variant lands where it landed before."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

BASELINES = yaml.safe_load((Path(__file__).parent / "baselines.yaml").read_text())


def run(*arguments: str) -> str:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("baselines")
    run("tools/synthesize.py", "criteo", "--rows", "40000", "--seed", "7", "--output", f"{folder}/log.tsv")
    run("tools/preprocess.py", "criteo", "--input", f"{folder}/log.tsv", "--output", f"{folder}/data", "--min-count", "5")
    return folder / "data"


@pytest.mark.parametrize("config", BASELINES)
def test_short_training_reaches_its_baseline(data, tmp_path, config):
    sets = [f"data.path={data}", f"run.dir={tmp_path}/run", "train.batch_size=512", "train.validations_per_epoch=1"]
    run("-m", "dmoe.train", "--config", f"configs/{config}", *(part for value in sets for part in ("--set", value)))
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    for name, (expected, tolerance) in BASELINES[config].items():
        assert metrics[name] == pytest.approx(expected, abs=tolerance), name
