"""The way of the README on a small log: make one, preprocess it, train on two ranks through torchx, evaluate, report."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dmoe.serve.scorer import Scorer
from tests.signs_of_life import besides

KEYS = {"auc", "auc_error_bound", "logloss", "ne", "calibration", "cec", "cec_floor", "cec_matrix", "samples_per_second"}
BIN = Path(sys.executable).parent
SMALL = ["model.embedding.dim=4", "model.expert_dim=8", "train.batch_size=128", "train.log_every=20"]


def run(*command: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == code, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("readme")
    told = run(sys.executable, "tools/synthesize.py", "criteo", "--rows", "20000", "--seed", "3", "--output", f"{folder}/log.tsv").stdout
    assert re.search(r"Bayes-optimal .* AUC 0\.[78]", told)
    run(sys.executable, "tools/preprocess.py", "criteo", "--input", f"{folder}/log.tsv", "--output", f"{folder}/data", "--min-count", "3")
    return folder / "data"


@pytest.fixture(scope="module")
def trained(data) -> Path:
    launch = ["torchx", "run", "--scheduler", "local_cwd", "launch/components.py:train", "--config", "configs/demo.yaml"]
    run(*launch, "--data", str(data), "--run", f"{data.parent}/run", "--j", "1x2", "--", "--set", *SMALL)
    return data.parent / "run"


def test_a_launched_run_leaves_what_the_readme_says(trained):
    metrics = json.loads((trained / "metrics.json").read_text())
    assert metrics.keys() >= KEYS
    assert metrics["world_size"] == 2
    assert 0.58 < metrics["auc"] < 0.8
    assert {"config.yaml", "environment.json", "plan.json", "metrics.jsonl", "tensorboard", "checkpoints"} <= {
        path.name for path in trained.iterdir()
    }
    kinds = {json.loads(line)["kind"] for line in (trained / "metrics.jsonl").read_text().splitlines()}
    assert {"train", "validation"} <= kinds


def test_evaluating_again_gives_the_same_figures(trained):
    # On another number of ranks than the run's.
    run(sys.executable, "-m", "dmoe.evaluate", "--run", str(trained))
    metrics, again = (json.loads((trained / name).read_text()) for name in ("metrics.json", "evaluation.json"))
    for key in KEYS - {"samples_per_second", "cec_matrix"}:
        assert again[key] == pytest.approx(metrics[key], rel=1e-5), key


def test_a_report_is_one_self_contained_page(trained, tmp_path):
    told = run(sys.executable, "tools/report.py", "runs", str(trained), "--output", f"{tmp_path}/page.html").stdout
    assert "D-MoE" in told
    text = (tmp_path / "page.html").read_text()
    assert text.count("<svg") >= 4
    assert not re.search(r"(src|href)=['\"]https?:", text)


def test_a_run_is_not_overwritten(trained, data):
    done = run(
        sys.executable,
        "-m",
        "dmoe.train",
        "--config",
        "configs/demo.yaml",
        "--set",
        f"data.path={data}",
        "--set",
        f"run.dir={trained}",
        code=2,
    )
    (line,) = besides(done.stderr)
    assert "holds a run already" in line


def test_a_launch_with_a_misspelt_key_ends_before_it_is_submitted():
    done = run("torchx", "run", "launch/components.py:train", "--config", "configs/demo.yaml", "--", "--set", "train.batchsize=3", code=2)
    assert "train.batchsize: unknown key, did you mean 'batch_size'?" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_the_demo(tmp_path):
    done = run(sys.executable, "tools/demo.py", "--rows", "30000", "--folder", str(tmp_path / "demo"))
    assert "Homo-MoE (SE)" in done.stdout
    assert (tmp_path / "demo" / "report.html").stat().st_size > 20_000
    assert "against the run's evaluation on" in done.stdout, "the scorer's logits are compared with those of the test"
    rows = json.loads((tmp_path / "demo" / "rows.json").read_text())["rows"]
    scores = Scorer(str(tmp_path / "demo" / "scorer")).predict(rows)
    assert len(scores) == 3
    assert len(set(scores.tolist())) > 1
