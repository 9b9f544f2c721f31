"""The ladder, its report, the comparison, export and scoring, as a person runs them: on one small ladder, killed half-way.

The runs take seconds; importing torch and TorchRec in each command is what this file's time goes to.
"""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from dmoe.testing.small_data import make_data_set

ROOT = Path(__file__).resolve().parent.parent.parent
THREADS = str(os.cpu_count())
"""What `--jobs 1` gives a run: another number would add up in another order."""
BASE = """
model: {embedding: {dim: 4}, experts: [mlp, crossnet], expert_dim: 8, tower: {hidden: [8]}}
train: {batch_size: 100, max_steps: 12, validations_per_epoch: 2, guard: {enabled: false}}
"""
LADDER = """
title: A small ladder
base: base.yaml
variants:
  se: {label: shared, set: {model: {embedding: {sets: shared}}}}
  me: {label: several}
  dmoe: {label: decorrelated, set: {correlation: {alpha: 0.5}}}
  one: {label: one expert, set: {model: {experts: [mlp]}}}
ensembles: {both: {label: the two, of: [me, one]}}
rungs: [se, me, dmoe]
dose: {key: correlation.alpha, variants: {me: 0.0, dmoe: 0.5}}
controls: [{variant: me, against: both, question: "Does it beat the ensemble?"}]
"""


def tool(*arguments: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"OMP_NUM_THREADS": THREADS, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def arguments(folder: Path, seeds: int = 2) -> list[str]:
    set_ = ["--set", f"data.path={folder}/data", "--jobs", "1", "--seeds", str(seeds)]
    return ["tools/report.py", "ladder", "--config", str(folder / "ladder.yaml"), "--output", str(folder / "out"), *set_]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A ladder that was killed (SIGKILL) once two of its runs were finished, and then run again."""
    folder = tmp_path_factory.mktemp("ladder")
    make_data_set(folder / "data")
    (folder / "base.yaml").write_text(BASE)
    (folder / "ladder.yaml").write_text(LADDER)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    first = subprocess.Popen([sys.executable, *arguments(folder)], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 900
    while len(finished(folder)) < 2:
        assert time.monotonic() < deadline
        assert first.poll() is None
        time.sleep(0.05)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    before = {path: path.stat().st_mtime_ns for path in finished(folder)}
    (folder / "before.json").write_text(json.dumps({str(path): at for path, at in before.items()}))
    second = tool(*arguments(folder))
    assert second.returncode == 0, second.stderr
    (folder / "said.txt").write_text(second.stdout)
    return folder


def finished(folder: Path) -> list[Path]:
    return sorted(folder.glob("out/runs/*/*/metrics.json"))


def test_a_killed_ladder_goes_on_and_trains_nothing_twice(folder):
    before = json.loads((folder / "before.json").read_text())
    assert 2 <= len(before) < 8
    assert len(finished(folder)) == 8
    assert all(Path(path).stat().st_mtime_ns == at for path, at in before.items())
    assert f"8 runs, {len(before)} finished already" in (folder / "said.txt").read_text()


@pytest.mark.slow
def test_a_workers_later_run_equals_a_run_in_a_process_of_its_own(folder):
    alone = folder / "alone"
    config = folder / "out/configs/dmoe/seed-1.yaml"
    result = tool("-m", "dmoe.train", "--config", str(config), "--set", f"run.dir={alone}")
    assert result.returncode == 0, result.stderr
    mine, theirs = (np.load(path / "predictions.npz") for path in (alone, folder / "out/runs/dmoe/seed-1"))
    np.testing.assert_array_equal(mine["logit"], theirs["logit"])


def test_the_report_says_what_the_runs_say(folder):
    said, page = (folder / "said.txt").read_text(), (folder / "out/ladder.html").read_text()
    for words in ("Altogether decorrelated against shared", "Does it beat the ensemble?"):
        assert words in said
        assert words in page
    assert page.count("<svg") >= 6
    assert "http://" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace("http://creativecommons.org", "")
    with open(folder / "out/runs.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 10
    for row in rows:
        path = folder / f"out/runs/{row['variant']}/seed-{row['seed']}/metrics.json"
        if path.exists():
            assert float(row["auc"]) == pytest.approx(json.loads(path.read_text())["auc"], abs=1e-9)
    for row in rows:
        assert min(float(row[f"fastest_milliseconds_{rows}_rows"]) for rows in (1, 4096)) > 0
    of = {row["variant"]: row for row in rows}
    assert float(of["both"]["scorer_bytes"]) == float(of["me"]["scorer_bytes"]) + float(of["one"]["scorer_bytes"])
    assert (of["one"]["cec"], of["both"]["cec"]) == ("", "")
    assert "1 row, ms" in page
    assert not (folder / "out/.scorers").exists()
    with open(folder / "out/differences.csv") as file:
        step = next(row for row in csv.DictReader(file) if (row["kind"], row["variant"]) == ("step", "dmoe"))
    aucs = {(row["variant"], row["seed"]): float(row["auc"]) for row in rows}
    expected = np.mean([aucs["dmoe", seed] - aucs["me", seed] for seed in "01"])
    assert float(step["auc_seeds"]) == pytest.approx(expected, abs=1e-9)
    # Over rows the AUC is exact, over seeds it is the evaluation's, binned: they agree within its bound.
    assert float(step["auc_rows"]) == pytest.approx(expected, abs=1e-4)


@pytest.mark.slow
def test_what_is_missing_runs_as_a_job_of_torchx(folder, tmp_path):
    output = tmp_path / "out"
    shutil.copytree(folder / "out", output)
    shutil.rmtree(output / "runs/me/seed-1")
    kept = {path: path.stat().st_mtime_ns for path in output.glob("runs/*/*/metrics.json")}
    command = ["tools/report.py", "ladder", "--config", str(folder / "ladder.yaml"), "--output", str(output), "--seeds", "2"]
    command += ["--set", f"data.path={folder}/data", "--latency-rounds", "0"]
    result = tool(*command, "--torchx", "local_cwd", "--torchx-arg=--j=1x1")
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("launch/components.py:train") == 1
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    (output / "ladder.html").unlink()
    again = tool(*command, "--report-only")
    assert again.returncode == 0, again.stderr
    assert "launch/components.py" not in again.stdout
    page = (output / "ladder.html").read_text()
    assert "not finished" not in page
    with open(output / "runs.csv") as file:
        assert len(list(csv.DictReader(file))) == 10
    later = tool(*command, "--report-only", "--first-seed", "1", "--seeds", "1")
    assert later.returncode == 0, later.stderr
    with open(output / "runs.csv") as file:
        assert [row["seed"] for row in csv.DictReader(file)] == ["1"] * 5


def test_a_changed_setting_is_refused_before_anything_is_trained(folder):
    result = tool(*arguments(folder), "--set", "model.embedding.dim=8")
    assert result.returncode == 2
    assert re.search(r"model\.embedding\.dim .*4.*8", result.stderr)
    assert len(result.stderr.splitlines()) == 1


def test_compare_slices_and_refuses_other_rows(folder, tmp_path):
    a, b = (str(folder / f"out/runs/{name}/seed-0") for name in ("dmoe", "se"))
    result = tool("tools/report.py", "compare", a, b, "--slice", "C2", "--slice", "I1", "--output", str(tmp_path / "page.html"))
    assert result.returncode == 0, result.stderr
    assert "AUC of decorrelated less shared" in result.stdout
    assert "shadow test on logloss" in result.stdout
    assert "C2: id 0 (missing)" in result.stdout
    assert "<svg" in (tmp_path / "page.html").read_text()
    other = np.load(f"{b}/predictions.npz")
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    for name in ("config.yaml", "metrics.json", "metrics.jsonl"):
        (stranger / name).write_bytes((Path(b) / name).read_bytes())
    np.savez(stranger / "predictions.npz", logit=other["logit"], label=other["label"], order=np.array("other"))
    refused = tool("tools/report.py", "compare", a, str(stranger))
    assert refused.returncode == 2
    assert str(stranger) in refused.stderr
    unknown = tool("tools/report.py", "compare", a, b, "--slice", "C22")
    assert unknown.returncode == 2
    assert "C22" in unknown.stderr


@pytest.mark.parametrize("rows", ["fp32", pytest.param("int8", marks=pytest.mark.slow)])
def test_exported_scores_are_the_evaluations(folder, tmp_path, rows):
    run = folder / "out/runs/dmoe/seed-0"
    scorer, out = tmp_path / "scorer", tmp_path / "scores.parquet"
    result = tool("tools/export.py", "--run", str(run), "--output", str(scorer), "--rows", rows)
    assert result.returncode == 0, result.stderr
    assert "against the run's evaluation on 700 rows" in result.stdout
    result = tool("tools/score.py", "--scorer", str(scorer), "--data", str(folder / "data"), "--output", str(out), "--batch-size", "64")
    assert result.returncode == 0, result.stderr
    kept, scores = np.load(run / "predictions.npz"), pq.read_table(out)
    np.testing.assert_allclose(scores["logit"].to_numpy(), kept["logit"], atol=1e-5 if rows == "fp32" else 5e-2)
    np.testing.assert_array_equal(scores["label"].to_numpy() > 0, kept["label"])


@pytest.mark.slow
def test_cost_is_told_before_training(folder):
    result = tool("tools/cost.py", "--data", str(folder / "data"), "--ladder", str(folder / "ladder.yaml"), "--ranks", "2")
    assert result.returncode == 0, result.stderr
    lines = {line.split("  ")[0]: line for line in result.stdout.splitlines()}
    # 155 ids of 4 features, and of 3 integers' field none: 4 dims a set.
    assert f"  {155 * 4:,}  " in lines["shared"]
    assert f"  {155 * 8:,}  " in lines["several"]


@pytest.mark.slow
def test_runs_evaluated_anew_are_compared_on_those_rows(folder):
    runs = [str(folder / f"out/runs/{name}/seed-0") for name in ("me", "se")]
    for run in runs:
        result = tool("-m", "dmoe.evaluate", "--run", run, "--split", "validation", "--output", "later.json")
        assert result.returncode == 0, result.stderr
    result = tool("tools/report.py", "compare", *runs, "--evaluation", "later", "--slice", "C1")
    assert result.returncode == 0, result.stderr
    figures = [json.loads((Path(run) / "later.json").read_text()) for run in runs]
    assert f"{figures[0]['auc']:,.5g}" in result.stdout
    kept = [np.load(Path(run) / "later.npz") for run in runs]
    assert str(kept[0]["order"]) == str(kept[1]["order"])
    # The runs' own test rows are as they were.
    assert len(np.load(Path(runs[0]) / "predictions.npz")["logit"]) == 700


def test_no_run_is_one_line():
    result = tool("tools/export.py", "--run", "/nowhere", "--output", "/tmp/nowhere")
    assert result.returncode == 2
    assert result.stderr == "tools/export.py: /nowhere: no run there (no config.yaml)\n"
