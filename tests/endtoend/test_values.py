"""Values that training did not have, from preparation to scores: each is read, told or refused in one line, by the commands."""

import json
import random
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).parents[2]
SCHEMA = """
label: click
dense: [{name: price, transform: standardise}, {name: age, transform: none}]
categorical: [site, user]
"""


def run(*arguments: str, fails: bool = False) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=1000)
    assert done.returncode == (2 if fails else 0), done.stderr
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr
    return done


def write(path: Path, price: str = "0.1", user: str = "{}", age: str = "30", other: str = "") -> str:
    """1,000 rows of 30 users; `other` is the price of every fourth row where given."""
    draw, lines = random.Random(0), []
    for number in range(1000):
        site, who = draw.randrange(6), 1000 + draw.randrange(30)
        click = int(draw.random() < (0.8 if site < 3 else 0.2))
        lines.append(f"{click},s{site},{user.format(who)},{other if other and number % 4 == 0 else price},{age if number else '30'}")
    path.write_text("click,site,user,price,age\n" + "\n".join(lines) + "\n")
    return str(path)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`data`, made of a log whose price is constant and whose users are integers; `run` and `scorer` of it."""
    folder = tmp_path_factory.mktemp("values")
    (folder / "schema.yaml").write_text(SCHEMA)
    log, data, trained = write(folder / "log.csv"), str(folder / "data"), str(folder / "run")
    run("tools/preprocess.py", "log", "--schema", str(folder / "schema.yaml"), "--input", log, "--output", data)
    sets = [f"data.path={data}", f"run.dir={trained}", "train.batch_size=128", "train.epochs=2", "metrics.predictions=true"]
    run("-m", "dmoe.train", "--config", "configs/demo.yaml", "--set", *sets)
    assert "probabilities by 0" in run("tools/export.py", "--run", trained, "--output", str(folder / "scorer")).stdout
    return folder


def scored(place: Path, log: str, output: Path, fails: bool = False) -> tuple[str, np.ndarray | None]:
    arguments = ["--scorer", str(place / "scorer"), "--log", log, "--vocabulary", str(place / "data"), "--output", str(output)]
    done = run("tools/score.py", *arguments, fails=fails)
    return done.stderr + done.stdout, pq.read_table(output)["logit"].to_numpy() if output.exists() else None


@pytest.mark.slow
def test_what_training_did_not_have_is_read_told_or_refused(place: Path, tmp_path: Path):
    said, trained = scored(place, str(place / "log.csv"), tmp_path / "same.parquet")
    assert "training data" not in said
    assert trained is not None

    said, floats = scored(place, write(tmp_path / "floats.csv", user="{}.0"), tmp_path / "floats.parquet")
    np.testing.assert_array_equal(floats, trained)
    assert "training data" not in said

    said, later = scored(place, write(tmp_path / "later.csv", other="0.2"), tmp_path / "later.parquet")
    assert np.isfinite(later).all()
    assert "AUC" in said

    others = write(tmp_path / "others.csv", user="u{}")
    said, _ = scored(place, others, tmp_path / "others.parquet")
    (line,) = [line for line in said.splitlines() if "training data" in line]
    assert line.startswith(f"{others}: user: 100.0% of its values are unknown (0.0% in the training data)")

    said, nothing = scored(place, write(tmp_path / "huge.csv", age="3e38"), tmp_path / "huge.parquet", fails=True)
    assert nothing is None
    (line,) = [line for line in said.splitlines() if line.startswith("tools/score.py: ")]
    assert re.search(r"split 'score': .* row 1 .*999 .*1,000.* age, 3e\+38", line)


@pytest.mark.slow
def test_evaluation_on_other_data_tells_skew_and_refuses_what_overflows(place: Path, tmp_path: Path):
    data: dict[str, str] = {}
    for name, options in (("others", {"user": "u{}"}), ("huge", {"age": "3e38"})):
        log, data[name] = write(tmp_path / f"{name}.csv", **options), str(tmp_path / name)
        done = run("tools/preprocess.py", "log", "--vocabulary", str(place / "data"), "--input", log, "--output", data[name])
        told = [line for line in done.stdout.splitlines() if "training data" in line]
        assert [line.strip().split(": ")[1] for line in told] == (["user"] if name == "others" else [])
    done = run("-m", "dmoe.evaluate", "--run", str(place / "run"), "--data", data["others"], "--output", "others.json")
    assert f"{data['others']}: user: 100.0% of its values are unknown" in done.stderr
    json.dumps(json.loads((place / "run" / "others.json").read_text()), allow_nan=False)
    done = run("-m", "dmoe.evaluate", "--run", str(place / "run"), "--data", data["huge"], "--output", "huge.json", fails=True)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("dmoe.evaluate: ")]
    assert f"{data['huge']}, split 'test': " in line
    assert "age, 3e+38" in line
    assert not list((place / "run").glob("huge*"))


@pytest.mark.slow
def test_the_export_check_tells_what_the_runs_data_has_become(place: Path):
    """Last: the run's data set is made again, of another log."""
    log, data = write(place / "again.csv", user="u{}"), str(place / "data")
    run("tools/preprocess.py", "log", "--vocabulary", data, "--input", log, "--output", str(place / "again"))
    (place / "data").rename(place / "first")
    (place / "again").rename(place / "data")
    said = run("tools/export.py", "--run", str(place / "run"), "--output", str(place / "scorer2")).stdout
    assert f"not checked: {data} has other test rows than {place / 'run'} was tested on" in said
    assert f"{data}: user: 100.0% of its values are unknown" in said.splitlines()[-1]
