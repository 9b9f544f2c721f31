"""Data for another model, by every command that gives a model data: one line and exit code 2, whatever names and sizes say."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dmoe.data.prepare.pipeline import preprocess
from dmoe.testing.synthesize import synthesize
from tests import log_files
from tests.unit.data.compared import make_day, write_day

ROOT = Path(__file__).parents[2]
SMALL = ["train.batch_size=1024", "train.epochs=9", "train.guard={enabled: false}", "metrics.predictions=true"]


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=1000, check=False)


def train(data: Path, folder: Path, *arguments: str | Path, steps: int = 2) -> subprocess.CompletedProcess[str]:
    settings = [f"data.path={data}", f"run.dir={folder}", f"train.max_steps={steps}", *SMALL]
    return run("-m", "dmoe.train", "--config", "configs/demo.yaml", *arguments, "--set", *settings)


def taken(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith(("dmoe.", "tools/"))]
    assert all(word in line for word in words), line


def renamed(line: str) -> str:
    """A line of Criteo's with other tokens, as frequent as before, and the other label."""
    label, *fields = line.split("\t")
    tokens = [f"{int(token, 16) ^ 0x55555555:08x}" if token else "" for token in fields[13:]]
    return "\t".join([str(1 - int(label)), *fields[:13], *tokens]) + "\n"


def criteo(folder: Path, log: Path, **options: Any) -> None:
    preprocess(log_files.criteo([str(log)], str(folder), **{"min_count": 3, "workers": 1, **options}))


@pytest.fixture(scope="module", params=["log", "criteo"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two days with vocabularies of their own, the second one with the first one's, and a run on the first, exported."""
    folder: Path = tmp_path_factory.mktemp(request.param)
    if request.param == "log":
        for name, order in (("day1", "abcd"), ("day2", "dcba")):
            write_day(folder / f"{name}.csv", order, rows=600)
            make_day(folder / name, folder / f"{name}.csv")
        make_day(folder / "next", folder / "day2.csv", vocabulary=str(folder / "day1"))
    else:
        synthesize(str(folder / "day1.csv"), 1200, seed=3, scale=0.002)
        (folder / "day2.csv").write_text("".join(map(renamed, (folder / "day1.csv").read_text().splitlines())))
        for name in ("day1", "day2"):
            criteo(folder / name, folder / f"{name}.csv")
        criteo(folder / "next", folder / "day2.csv", vocabulary=str(folder / "day1"))
    taken(train(folder / "day1", folder / "run"))
    assert "logits differ" in taken(run("tools/export.py", "--run", folder / "run", "--output", folder / "scorer"))
    return folder


@pytest.mark.slow
def test_data_for_another_model_is_refused_by_every_command(made: Path, tmp_path: Path) -> None:
    where = f"{made}/day2/manifest.json: feature "
    evaluate = ("-m", "dmoe.evaluate", "--run", made / "run", "--data")
    score = ("tools/score.py", "--scorer", made / "scorer", "--output", tmp_path / "scores.csv")
    refused(run(*evaluate, made / "day2"), "dmoe.evaluate: ", where)
    assert not (made / "run" / "evaluation.json").exists()
    refused(run(*score, "--data", made / "day2"), "tools/score.py: ", where)
    refused(run(*score, "--log", made / "day2.csv", "--vocabulary", made / "day2"), "tools/score.py: ", where)
    refused(train(made / "day2", tmp_path / "second", "--init-from", made / "run"), "dmoe.train: train.init_from: ", where)
    assert not (tmp_path / "second" / "config.yaml").exists()
    taken(run(*evaluate, made / "next"))
    taken(run(*score, "--data", made / "next"))
    taken(run(*score, "--log", made / "day2.csv", "--vocabulary", made / "day1"))
    taken(train(made / "next", tmp_path / "third", "--init-from", made / "run"))


@pytest.mark.slow
@pytest.mark.parametrize("made", ["log"], indirect=True)
def test_a_data_set_that_was_made_anew_in_place_is_refused(made: Path, tmp_path: Path) -> None:
    data, folder = tmp_path / "data", tmp_path / "run"
    shutil.copytree(made / "day1", data)
    taken(train(data, folder))
    for name in ("train", "validation", "test", "vocabulary"):
        shutil.rmtree(data / name, ignore_errors=True)
    shutil.copytree(made / "day2", data, dirs_exist_ok=True)
    where = f"{data}/manifest.json: feature "
    refused(train(data, folder, "--resume", steps=4), "dmoe.train: ", where)
    refused(run("-m", "dmoe.evaluate", "--run", folder), "dmoe.evaluate: ", where)
    # The scorer is the run's; what it would be checked on is not there.
    assert "not checked" in taken(run("tools/export.py", "--run", folder, "--output", tmp_path / "scorer"))
    refused(run("tools/score.py", "--scorer", tmp_path / "scorer", "--data", data, "--output", tmp_path / "s.csv"), where)


@pytest.mark.slow
@pytest.mark.parametrize("made", ["log"], indirect=True)
def test_a_shard_of_another_data_set_is_refused(made: Path, tmp_path: Path) -> None:
    """Of the same columns and ids, and of as many rows, but for the test split's first, which is taken from the same log of another day."""
    data = tmp_path / "data"
    shutil.copytree(made / "day1", data)
    shutil.copy(made / "next" / "test" / "part-00000.parquet", data / "test" / "part-00000.parquet")
    where = f"{data}/test/part-00000.parquet: "
    refused(train(data, tmp_path / "run"), "dmoe.train: ", where)
    refused(run("-m", "dmoe.evaluate", "--run", made / "run", "--data", data), "dmoe.evaluate: ", where)
    refused(run("tools/score.py", "--scorer", made / "scorer", "--data", data, "--output", tmp_path / "s.csv"), "tools/score.py: ", where)
