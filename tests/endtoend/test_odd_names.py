"""Any text is a feature's name, from the log to the scores: as docs/logs.md goes, with the names of tests/odd_names.py."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dmoe.checkpoint import inspect, of_run
from dmoe.checkpoint.contents import Contents
from dmoe.checkpoint.tensors import TensorFile
from dmoe.config.config import override_key
from dmoe.data.dataset.describe import describe
from dmoe.data.dataset.describe_view import describe_document
from dmoe.data.dataset.manifest import load_manifest
from dmoe.data.npy import export as export_npy
from dmoe.data.prepare.split.split_rules import Splitter, parse_shares
from dmoe.report.run_page import run_document
from dmoe.report.runs import load_run
from dmoe.serve.export.export import export
from dmoe.serve.score_dataset import score_split
from dmoe.serve.score_raw import made_from
from dmoe.serve.scorer import Scorer
from dmoe.sharding.plan.plan_file import read_plan
from dmoe.sharding.plan.report.plan_stats import figures_of
from dmoe.sharding.plan.report.show import matching, plan_document
from tests.odd_names import CATEGORICAL, NUMBERS, SHARES, make_odd

ROOT = Path(__file__).parents[2]
SMALL = ["model.embedding.dim=4", "model.expert_dim=8", "model.experts=[crossnet,mlp]", "train.batch_size=128", "metrics.predictions=true"]


@pytest.fixture(scope="module")
def odd(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("odd")
    make_odd(folder)
    return folder


@pytest.fixture(scope="module", params=["wide", "separate"])
def run(odd, request) -> str:
    """A finished run, with a constraint on every feature."""
    folder = str(odd / f"run-{request.param}")
    keys = [override_key("sharding", "tables", name, "types") for name in CATEGORICAL]
    settings = [f"data.path={odd}/d", f"run.dir={folder}", f"model.embedding.layout={request.param}", *SMALL]
    command = [
        sys.executable,
        "-m",
        "dmoe.train",
        "--config",
        "configs/demo.yaml",
        "--set",
        *settings,
        *(f"{key}=[row_wise]" for key in keys),
    ]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_scores_of_the_data_set_and_of_the_raw_log_are_the_evaluation_s(odd, run, tmp_path):
    about = export(run, str(tmp_path / "scorer"))
    assert [feature.name for feature in about.features] == list(CATEGORICAL)
    assert about.dense == list(NUMBERS)
    scorer = Scorer(str(tmp_path / "scorer"))
    with np.load(f"{run}/predictions.npz") as kept:
        expected = kept["logit"]
    found = np.concatenate([logit_B for logit_B, _ in score_split(scorer, str(odd / "d"), "test", 64)])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    with made_from([str(odd / "log.csv")], str(odd / "d"), 0.0) as made:
        raw = np.concatenate([logit_B for logit_B, _ in score_split(scorer, str(made), "score", 64)])
    test = Splitter(parse_shares(SHARES), "random", 0).assign(0, len(raw), len(raw)) == 2
    np.testing.assert_allclose(raw[test], expected, atol=1e-5)


def test_a_checkpoint_s_tables_come_out_one_by_one_and_together(run, tmp_path):
    assert all(f"{name}/0" in {str(table) for table in Contents(of_run.newest(run)).names()} for name in CATEGORICAL)
    inspect.export(of_run.newest(run), str(tmp_path / "all.safetensors"), per_table=False, states=False)
    whole = TensorFile(str(tmp_path / "all.safetensors"))
    assert {f"{name}/{number}" for name in CATEGORICAL for number in (0, 1)} <= whole.entries.keys()
    inspect.export(of_run.newest(run), str(tmp_path / "tables"), per_table=True, states=False)
    files = list((tmp_path / "tables").iterdir())
    assert len(files) == 2 * len(CATEGORICAL) + 1
    for path in files:
        entries = TensorFile(str(path)).entries
        assert len(entries) == 1 or path.name == "dense.safetensors"
        for name in entries:
            np.testing.assert_array_equal(TensorFile(str(path)).rows(name), whole.rows(name))


def test_a_plan_s_pages_and_reports_tell_every_name(run):
    figures = figures_of(read_plan(f"{run}/plan.json"), "plan.json")
    shown = plan_document(figures, page=True)
    assert all(line.isprintable() for line in shown.text().splitlines())
    for table in figures.tables:
        assert matching(figures, table.name, "--tables", figures.tables) == [table]
    assert "user.id" in shown.html()
    assert "<svg" in run_document([load_run(run)], "=1+1").html()


def test_a_data_set_is_described_shuffled_and_exported(odd, tmp_path):
    told = describe(str(odd / "d"))
    assert [feature.name for feature in told.features] == list(CATEGORICAL)
    assert max(map(len, describe_document(told).text().splitlines())) <= 100
    assert "user.id" in describe_document(told).html()
    assert [one.top for one in describe(make_odd(tmp_path, shuffle=True)).features] == [one.top for one in told.features]


def test_npy_has_a_file_a_column_and_says_which(tmp_path):
    make_odd(tmp_path, rows=60)
    manifest = json.loads((tmp_path / "d" / "manifest.json").read_text())
    bags = {feature["name"] for feature in manifest["categorical"] if "pooling" in feature}
    manifest["categorical"] = [feature for feature in manifest["categorical"] if feature["name"] not in bags]
    (tmp_path / "d" / "manifest.json").write_text(json.dumps(manifest))
    said = export_npy(str(tmp_path / "d"), str(tmp_path / "npy"), "columns-npy")
    names = [*NUMBERS, *(one.name for one in load_manifest(str(tmp_path / "d")).categorical)]
    files = {f"{said['files'].get(name, name)}.npy" for name in names}
    assert len(files) == len(names)
    assert {path.name for path in (tmp_path / "npy" / "train").iterdir()} == files | {"label.npy"}
