"""Mutations of checkpoints, plans, measurements, scorers and figures of runs: one line, or sound."""

import hashlib
import json
import math

import numpy as np
import pytest
import torch

from dmoe.checkpoint import index as checkpoint
from dmoe.checkpoint import inspect
from dmoe.checkpoint.load import check_fits
from dmoe.checkpoint.progress import Progress, progress_from
from dmoe.checkpoint.tensors import write_tensors
from dmoe.config.config import Config, dump_config, parse_config
from dmoe.errors import UserError
from dmoe.model.embedding.tables import Section, Table
from dmoe.report.run_page import run_document
from dmoe.report.runs import load_run
from dmoe.serve.scorer import Scorer
from dmoe.sharding.plan.plan_file import as_text as plan_text
from dmoe.sharding.plan.plan_file import read_plan
from dmoe.sharding.plan.report.diff import diff_document, difference
from dmoe.sharding.plan.report.plan_stats import figures_of
from dmoe.sharding.plan.report.show import View, plan_document
from dmoe.sharding.planner.cost.calibrate import compare, read_measurement
from dmoe.sharding.planner.cost.calibrate_words import calibration_document
from dmoe.train.optimizer.schedule import Schedule
from tests.unit.given import SHARES, hold, writer
from tests.unit.serve import test_scorer
from tests.unit.sharding.small_plans import plan_of
from tests.unit.sharding.small_plans import table as planned

PROGRESS = {
    "step": 3,
    "steps_before": 0,
    "epoch": 0,
    "row": 3,
    "batch_size": 1,
    "order": "o",
    "due": False,
    "best_auc": 0.6,
    "best_step": 2,
    "waited": 0,
    "trained_rows": 3,
    "seconds": 1.5,
    "schedule": {"plateau": 1.0, "waited": 0, "best": 0.6},
    "window": {"since": 0, "steps": 3, "sums": [1.0, 0.0, 0.5, 3.0]},
}


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A checkpoint of one table and its state, in two pieces, and of one dense parameter."""
    folder = tmp_path_factory.mktemp("checkpoint")
    arrays = {"C1/0|weight|0": np.ones((3, 2), "f4"), "C1/0|weight|3": np.ones((1, 2), "f4"), "C1/0|sum|0": np.ones(4, "f4")}
    parts = {"tables-00000-00000.safetensors": arrays, "dense.safetensors": {"model/w": np.ones(3, "f4")}}
    files = {}
    for name, part in parts.items():
        with (folder / name).open("wb") as file:
            files[name] = write_tensors(file, [(key, "F32", x.shape) for key, x in part.items()], part.values())
    pieces = []
    for key, array in arrays.items():
        table_name, state, row = key.split("|")
        width = array.shape[1] if array.ndim == 2 else 0
        pieces.append(checkpoint.Piece(table_name, state, int(row), 0, len(array), width, "tables-00000-00000.safetensors", key))
    checkpoint.write_index(str(folder), checkpoint.Index({"C1/0": (4, 2)}, tuple(pieces), files, PROGRESS))
    return folder


@SHARES
def test_checkpoints(share, kept, tmp_path):
    """With a checksum that holds: whoever makes up a file makes up its checksum."""
    sound = json.loads((kept / checkpoint.INDEX).read_text())
    for name in sound["files"]:
        (tmp_path / name).write_bytes((kept / name).read_bytes())

    def write(text):
        try:
            tree = json.loads(text)
            tree["checksum"] = hashlib.sha256(
                json.dumps({k: v for k, v in tree.items() if k != "checksum"}, sort_keys=True).encode()
            ).hexdigest()
            text = json.dumps(tree)
        except (ValueError, RecursionError, TypeError):
            pass
        (tmp_path / checkpoint.INDEX).write_text(text)

    def read():
        inspect.inspect(str(tmp_path))
        inspect.verify(str(tmp_path))
        contents = inspect.Contents(str(tmp_path))
        for name in contents.names():
            list(contents.blocks(name))
        progress = progress_from(contents.index.progress, "index.json")
        Schedule(Config().optimizer.schedule, 10).load_state(progress.schedule)
        assert isinstance(progress, Progress)
        assert progress.window is None or len(progress.window["sums"]) == 4

    hold(share, sound, write, read)


def test_a_model_of_other_shapes_is_refused_before_it_has_memory(kept):
    def tables(rows=4, dim=2):
        return [Table("C1", "t_C1", "C1", rows, (Section(0, 0, dim),))]

    def dense(*shape, dtype=torch.float32):
        module = torch.nn.Module()
        module.w = torch.nn.Parameter(torch.empty(*shape, dtype=dtype, device="meta"))
        return module

    assert check_fits(str(kept), tables(), dense(3)).index.tables == {"C1/0": (4, 2)}
    for rows, dim, module, named in [
        (1 << 40, 2, dense(3), "table 'C1/0'"),
        (4, 1 << 20, dense(3), "table 'C1/0'"),
        (4, 2, dense(1 << 40), "parameter 'w'"),
        (4, 2, dense(3, 1), "parameter 'w'"),
        (4, 2, dense(3, dtype=torch.float64), "parameter 'w'"),
    ]:
        with pytest.raises(UserError, match=named):
            check_fits(str(kept), tables(rows, dim), module)


@SHARES
def test_plans(share, tmp_path):
    tables = {
        "R": planned(10, 8, "row_wise", (0, 0, 5, 8, 0), (5, 0, 5, 8, 1)),
        "T": planned(5, 7, "table_wise", (0, 0, 5, 7, 1)),
        "D": planned(4, 8, "data_parallel"),
    }
    tried = {"what": "table_wise", "shards": 1, "shard_ms": 0.1, "all_ms": 0.1, "bytes": 100, "plan_ms": 0.2, "chosen": True}
    tables["T"] |= {"decided": "so", "tried": [tried, tried | {"plan_ms": None, "chosen": False}]}
    sound = plan_of(tables) | {"comm_precision": "fp16", "predicted": {"ranks": []}}
    other = tmp_path / "other.json"
    other.write_text(plan_text(sound))
    path = str(tmp_path / "plan.json")

    def read():
        plan = read_plan(path)
        figures = figures_of(plan, path)
        plan_document(figures, View("size", "*", "", None, "*")).text()
        found = difference(plan, read_plan(str(other)), path, str(other))
        diff_document(found, path, str(other)).text()

    hold(share, sound, writer(tmp_path / "plan.json"), read)


@SHARES
def test_measurements(share, tmp_path):
    plan = plan_of({"T": planned(5, 8, "table_wise", (0, 0, 5, 8, 1))})
    shard = {"table": "T", "row": 0, "column": 0, "rows": 5, "columns": 8, "weights": 160, "state": 160}
    rank = {"sent": {"all_to_all": 10.0}, "step_ms": 1.0, "forward_lookup_ms": 0.1, "backward_lookup_ms": 0.1, "exchange_ms": 0.1}
    ranks = [{"rank": 0, "shards": [], "peak_bytes": 1000, **rank}, {"rank": 1, "shards": [shard], "peak_bytes": 1000, **rank}]
    sound = {"format": "dmoe-measured", "version": 1, "device": "cpu", "steps": 2, "plan": plan, "ranks": ranks}
    path = tmp_path / "measured.json"

    def read():
        calibration_document(compare(read_measurement(str(path)), "measured.json")).text()

    hold(share, sound, writer(path), read)


@SHARES
def test_scorers(share, tmp_path):
    test_scorer.make(tmp_path)
    sound = json.loads((tmp_path / "scorer.json").read_text())
    dense_BI, ids_BF = test_scorer.batch(2)

    def read():
        scorer = Scorer(str(tmp_path), verify=False)
        scorer.logits(dense_BI, ids_BF)

    hold(share, sound, writer(tmp_path / "scorer.json"), read)


FIGURES = {
    "rows": 100,
    "positives": 30,
    "auc": 0.7,
    "logloss": 0.5,
    "ne": 0.9,
    "calibration": 1.0,
    "cec": 0.1,
    "cec_floor": 0.05,
    "cec_by_class": [0.1, 0.2],
    "cec_matrix": [[0.5, 0.1], [0.1, 0.5]],
    "cka_matrix": [[1.0, 0.2], [0.2, 1.0]],
    "dead_dims": [0, 1],
    "expert_variance": [0.5, 0.4],
    "expert_auc": [0.6, 0.65],
    "expert_left_out_auc": [0.69, 0.68],
    "gate_mass": [0.5, 0.5],
    "effective_experts": 2.0,
    "samples_per_second": 100.0,
    "eval_samples_per_second": 1e3,
    "data": "d",
    "split": "test",
}


@pytest.fixture
def run(tmp_path):
    config = parse_config("model: {experts: [mlp, crossnet]}", "c")
    (tmp_path / "config.yaml").write_text(dump_config(config))
    (tmp_path / "metrics.json").write_text(json.dumps(FIGURES))
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"kind": "train", "step": 1, "loss": 0.6}) + "\n")
    return tmp_path


@SHARES
def test_figures_of_a_run(share, run):
    def read():
        view = run_document([load_run(str(run))], "t")
        assert view.text()
        assert view.html()

    hold(share, FIGURES, writer(run / "metrics.json"), read)
    line = {"kind": "validation", "step": 3, "auc": 0.6, "cec": 0.2, "loss": 0.6}
    (run / "metrics.json").write_text(json.dumps(FIGURES))
    hold(share, line, writer(run / "metrics.jsonl"), read)


def test_a_figure_that_an_earlier_run_could_not_tell_is_undefined(run):
    (run / "metrics.json").write_text(json.dumps(FIGURES | {"calibration": math.nan, "auc": None}))
    (run / "metrics.jsonl").write_text('{"kind": "train", "step": 1, "loss": NaN}\n')
    found = load_run(str(run))
    assert found.metrics["calibration"] is None
    assert found.history["train"][0]["loss"] is None
