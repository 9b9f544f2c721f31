"""A team's own log from its schema to raw rows scored, by the commands of docs/logs.md."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from tests.unit.data.log.logs import TREE, make_rows, write_csv

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=1000)


def test_a_wrong_schema_is_one_line_and_exit_code_2(tmp_path: Path):
    write_csv(tmp_path / "log.csv", make_rows(20))
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(TREE | {"label": "click"}))
    done = run(
        "tools/preprocess.py", "log", "--schema", f"{tmp_path}/s.yaml", "--input", f"{tmp_path}/log.csv", "--output", f"{tmp_path}/d"
    )
    assert done.returncode == 2
    assert done.stderr == (
        f"tools/preprocess.py: {tmp_path}/log.csv:1: no column 'click', which {tmp_path}/s.yaml reads (label), did you mean 'clicked'?\n"
    )


@pytest.mark.slow
def test_from_a_schema_to_scores_of_raw_rows(tmp_path: Path):
    write_csv(tmp_path / "log.csv", make_rows(2000))
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(TREE))
    data, trained, scorer = (str(tmp_path / name) for name in ("d", "run", "scorer"))
    steps = [
        ["tools/preprocess.py", "log", "--schema", f"{tmp_path}/s.yaml", "--input", f"{tmp_path}/log.csv", "--output", data],
        ["-m", "dmoe.train", "--config", "configs/demo.yaml", "--set", f"data.path={data}", f"run.dir={trained}", "train.batch_size=256"],
        ["-m", "dmoe.evaluate", "--run", trained, "--split", "test"],
        ["tools/export.py", "--run", trained, "--output", scorer],
        ["tools/score.py", "--scorer", scorer, "--data", data, "--output", f"{tmp_path}/data.parquet"],
        ["tools/score.py", "--scorer", scorer, "--log", f"{tmp_path}/log.csv", "--vocabulary", data, "--output", f"{tmp_path}/raw.parquet"],
    ]
    steps[1].append("metrics.predictions=true")
    for step in steps:
        done = run(*step)
        assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert figures["gauc_groups"] > 5
    assert 0.2 < figures["gauc"] < 0.8
    with np.load(tmp_path / "run" / "predictions.npz") as kept:
        logit = kept["logit"]
    np.testing.assert_allclose(pq.read_table(tmp_path / "data.parquet")["logit"].to_numpy(), logit, atol=1e-5)
    raw = pq.read_table(tmp_path / "raw.parquet")["logit"].to_numpy()
    assert len(raw) == 2000
    from dmoe.data.prepare.split.split_rules import Splitter, parse_shares

    test = Splitter(parse_shares("0.8,0.1,0.1"), "random", 0).assign(0, 2000, 2000) == 2
    np.testing.assert_allclose(raw[test], logit, atol=1e-5)

    # No label says which rows are scored, and the lines that have no score are kept.
    rows = [row | {"clicked": "-1"} for row in make_rows(300)]
    write_csv(tmp_path / "next.csv", rows)
    with open(tmp_path / "next.csv", "a") as file:
        file.write("too,few\n")
    kept = ["--rejects", f"{tmp_path}/kept", "--max-bad-share", "0.1", "--output", f"{tmp_path}/next.csv.scores.csv"]
    done = run("tools/score.py", "--scorer", scorer, "--log", f"{tmp_path}/next.csv", "--vocabulary", data, *kept)
    assert done.returncode == 0, done.stderr
    assert "300 rows, without labels" in done.stdout
    assert (tmp_path / "kept" / "00000-next.csv.tsv").read_bytes().split(b"\n")[1].split(b"\t")[1] == b"302"
