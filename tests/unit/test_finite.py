"""Nothing that is not finite leaves the product without a word: every writer of numbers refuses NaN and infinity by name, or says None.

The writers of tests/distributed/test_not_finite.py need a process group.
"""

import ast
import hashlib
import json
import math
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from dmoe.data import npy, parquet
from dmoe.data.dataset.manifest import Manifest, load_manifest
from dmoe.data.prepare.pipeline import Options, preprocess
from dmoe.errors import UserError
from dmoe.finite import require_finite
from dmoe.json_text import defined
from dmoe.metrics import BinnedAUC, ExactAUC, GroupedAUC
from dmoe.metrics.evaluation import Evaluation, NotFinite
from dmoe.model.mixture import Outputs
from dmoe.report.ladder.csv_files import _text as csv_text
from dmoe.serve.score_dataset import write_scores
from dmoe.serve.scorer import Scorer
from dmoe.testing.small_data import make_data_set
from dmoe.testing.synthesize import synthesize
from dmoe.train.output.console import Reporter, headline
from dmoe.train.rehearsal import random_set
from dmoe.train.run.predictions import Predictions
from tests.unit.data.log.logs import make, make_rows, write_csv
from tests.unit.serve.test_scorer import batch
from tests.unit.serve.test_scorer import make as make_scorer

ROOT = Path(__file__).parents[2]
Patch = pytest.MonkeyPatch


def given_set(folder: Path, bad: float) -> Path:
    """A data set whose train rows hold a bad number, with the checksum that it has: another program's, or an older dmoe's."""
    make_data_set(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    shard = manifest["splits"]["train"]["shards"][1]
    path = folder / shard["path"]
    table = pq.read_table(path)
    values = table["I2"].to_numpy().copy()
    values[7] = bad
    pq.write_table(table.set_column(table.column_names.index("I2"), "I2", pa.array(values)), path, row_group_size=256)
    shard["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def prepare_log(folder: Path, patch: Patch, bad: float, shuffle: bool = False) -> Path:
    patch.setattr("dmoe.data.prepare.tokens.token_columns.transformed", lambda value_N, *_: np.full(len(value_N), bad, np.float32))
    write_csv(folder / "log.csv", make_rows(100))
    make(folder / "out", folder / "log.csv", shuffle=shuffle)
    return folder / "out" / "manifest.json"


def prepare_criteo(folder: Path, patch: Patch, bad: float) -> Path:
    patch.setattr("dmoe.data.prepare.tokens.kernels.log1p", lambda values: np.full(len(values), bad, np.float32))
    synthesize(str(folder / "log.tsv"), 300, seed=1, scale=0.001)
    preprocess(Options([str(folder / "log.tsv")], str(folder / "out"), schema="criteo", workers=1))
    return folder / "out" / "manifest.json"


def write_weights(folder: Path, _: Patch, bad: float) -> Path:
    table = pa.table({"label": pa.array([0, 1], pa.uint8()), "@weight": pa.array([1, bad], pa.float32())})
    parquet.write_shard(str(folder / "part.parquet"), table, 10, ())
    return folder / "part.parquet"


def export_npy(folder: Path, _: Patch, bad: float) -> Path:
    npy.export(str(given_set(folder / "d", bad)), str(folder / "out"), "columns-npy", workers=1)
    return folder / "out" / "export.json"


def draw_random_rows(folder: Path, patch: Patch, bad: float) -> Path:
    rows = random_set._rows
    patch.setattr(random_set, "_rows", lambda *given: rows(*given).set_column(1, "I1", pa.array(np.full(given[1], bad, np.float32))))
    random_set.write_random_set(str(folder), make_data_set(folder / "d"), {"train": 9})
    return folder / "manifest.json"


def score(folder: Path, bad: float, name: str) -> Path:
    write_scores(str(folder / name), iter([(np.zeros(3, np.float32), None), (np.array([0, bad], np.float32), None)]))
    return folder / name


def keep_predictions(folder: Path, _: Patch, bad: float) -> Path:
    kept = Predictions("order", 5)
    kept.add(torch.tensor([0.0, bad]), torch.ones(2), torch.ones(2))
    kept.write(str(folder / "predictions.npz"))
    return folder / "predictions.npz"


REFUSED: dict[str, tuple[Callable[[Path, Patch, float], Path], str]] = {
    "a log's shards": (prepare_log, r"000000-train\.parquet: price is {bad} at row 0 "),
    "Criteo's shards": (prepare_criteo, r"000000-train\.parquet: I1 is {bad} at row"),
    "a shard's weights": (write_weights, r"part\.parquet: @weight is {bad} at row 1,"),
    "shuffled shards": (partial(prepare_log, shuffle=True), r"000000-train\.arrow: price is {bad} at row 0 "),
    "npy": (export_npy, r"d: I2 of split 'train' is {bad} at row 1,507,"),
    "random rows": (draw_random_rows, r"train: I1 is {bad} at row 0 \(9 such rows of 9\)"),
    "scores, parquet": (lambda folder, _, bad: score(folder, bad, "s.parquet"), r"the logit is {bad} at row 4,"),
    "scores, CSV": (lambda folder, _, bad: score(folder, bad, "s.csv"), r"the logit is {bad} at row 4,"),
    "predictions": (keep_predictions, r"predictions\.npz: the logit is {bad} at row 1,"),
}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf], ids=str)
@pytest.mark.parametrize("writer", REFUSED)
def test_a_number_that_is_not_finite_is_refused_by_name_and_nothing_is_published(
    tmp_path: Path, monkeypatch: Patch, writer: str, bad: float
):
    write, message = REFUSED[writer]
    paths: list[Path] = []
    with pytest.raises(UserError, match=message.format(bad=bad)) as caught:
        paths.append(write(tmp_path, monkeypatch, bad))
    assert "\n" not in str(caught.value)
    assert not paths
    for name in ("out/manifest.json", "out/export.json", "manifest.json", "part.parquet", "s.parquet", "s.csv", "predictions.npz"):
        assert not (tmp_path / name).exists()


def test_scores_that_were_there_stay_where_new_ones_are_refused(tmp_path: Path):
    (tmp_path / "s.csv").write_text("as it was")
    with pytest.raises(UserError, match="nan at row"):
        score(tmp_path, math.nan, "s.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["s.csv"]
    assert (tmp_path / "s.csv").read_text() == "as it was"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (math.nan, r"^I1 is nan at row 105, expected a finite number$"),
        (-math.inf, r"^I1 is -inf at row 105,"),
        (3e38, r"^the model's logit is \S+ at row 105, .*; its largest number is I1, 3e\+38: "),
    ],
)
def test_a_scorer_names_the_row_and_the_number_of_a_score_that_is_not_finite(tmp_path: Path, value: float, message: str):
    make_scorer(tmp_path)
    scorer, (dense_BI, ids_BF) = Scorer(str(tmp_path)), batch()
    with torch.no_grad():
        for parameter in scorer.mixture.parameters():
            parameter *= 100
    dense_BI[5, 1] = value
    for call in (scorer.logits, lambda *rows, first_row: scorer.scores(*rows)):
        with pytest.raises(UserError, match=message if call == scorer.logits else message.replace("105", "5")):
            call(dense_BI, ids_BF, first_row=100)
    assert np.isfinite(scorer.logits(dense_BI[:5], ids_BF[:5])).all()


def outputs(**changes: torch.Tensor) -> Outputs:
    torch.manual_seed(0)
    shapes = {"logit_B": (6,), "hidden_BMD": (6, 2, 3), "gate_BMG": (6, 2, 1), "expert_logit_BM": (6, 2), "left_out_logit_BM": (6, 2)}
    shapes["selector_BLM"] = (6, 1, 2)
    return Outputs(**{name: torch.rand(shape) for name, shape in shapes.items()} | changes)


@pytest.mark.parametrize("auc", ["binned", "exact"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf], ids=str)
@pytest.mark.parametrize("part", Outputs._fields)
def test_an_evaluation_has_no_metric_over_outputs_that_are_not_finite(auc: str, bad: float, part: str):
    """One bad row of twelve; the reason is the number that stands out in it."""
    evaluation = Evaluation(auc, 1 << 16, torch.device("cpu"))
    label_B, weight_B, group_B, dense_BD = torch.tensor([0.0, 1] * 3), torch.ones(6), torch.ones(6).long(), torch.rand(6, 2)
    evaluation.update(outputs(), label_B, weight_B, group_B, dense_BD)
    broken = getattr(outputs(), part).clone()
    broken[4] = bad
    dense_BD[4, 1] = -1e30
    evaluation.update(outputs(**{part: broken}), label_B, weight_B, group_B, dense_BD)
    with pytest.raises(NotFinite, match=r"^1 row .*price, -1e\+30"):
        evaluation.compute(["age", "price"])


@pytest.mark.parametrize("kind", [BinnedAUC, ExactAUC])
@pytest.mark.parametrize("weights", [[1.0, 1, 1, 1], [2.0, 1, 1, 3]])
def test_an_auc_over_nan_is_nan_and_over_infinity_ordered(kind: Any, weights: list[float]):
    labels, weight_B = torch.tensor([0.0, 1, 0, 1]), torch.tensor(weights)
    for scores, expected in (([-math.inf, 0.0, 1.0, math.inf], None), ([0.0, math.nan, 1.0, 2.0], math.nan)):
        auc, grouped = kind(), GroupedAUC()
        auc.update(torch.tensor(scores), labels, weight_B)
        grouped.update(torch.tensor(scores), labels, weight_B, torch.tensor([1, 1, 2, 2]))
        values = [float(auc.compute()), grouped.compute().value]
        pairs = [(scores[p] > scores[n], weights[p] * weights[n]) for p in (1, 3) for n in (0, 2)]
        wins = sum(weight for won, weight in pairs if won) / sum(weight for _, weight in pairs)
        assert values == pytest.approx([wins, 1.0] if expected is None else [math.nan] * 2, nan_ok=True, rel=1e-4)
    padded = kind()
    padded.update(torch.tensor([0.0, 1.0, math.nan]), torch.tensor([0.0, 1, 0]), torch.tensor([1.0, 1, 0]))
    assert float(padded.compute()) == 1.0


def test_figures_without_a_value_are_none():
    """One label only, whose AUC, NE and calibration do not exist."""
    evaluation = Evaluation("binned", 1 << 16, torch.device("cpu"))
    evaluation.update(outputs(), torch.zeros(6), torch.ones(6))
    figures = evaluation.compute()
    json.dumps(figures, allow_nan=False)
    assert [figures[name] for name in ("auc", "ne", "calibration")] == [None] * 3
    assert "nan" not in headline(figures)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf], ids=str)
def test_a_training_line_is_said_and_kept_as_null(bad: float, capsys: pytest.CaptureFixture[str]):
    """Where the guard is off, training goes on with a loss that is not finite."""
    kept: list[dict[str, Any]] = []
    told = SimpleNamespace(scalars=lambda part, values, step: kept.append({f"{part}/{name}": value for name, value in values.items()}))
    reporter = Reporter(SimpleNamespace(log=lambda kind, figures: kept.append(figures)))  # type: ignore[arg-type]
    reporter.trackers = told  # type: ignore[assignment]
    reporter.begin(10, 0)
    reporter.trained(SimpleNamespace(step=5, epoch=0), {"loss": bad, "cec_batch": 0.5, "samples_per_second": 1.0})  # type: ignore[arg-type]
    json.dumps(kept, allow_nan=False)
    assert kept[0]["loss"] is None
    assert not any("train/loss" in one for one in kept)
    assert f"loss {bad:.4f}" in capsys.readouterr().err


@pytest.mark.parametrize("bad", [math.nan, math.inf], ids=str)
def test_a_manifest_has_no_share_that_is_not_finite(tmp_path: Path, bad: float):
    make_data_set(tmp_path)
    for part, key in (("dense", "missing_share"), ("categorical", "rare_share"), ("categorical", "mean_ids")):
        tree = load_manifest(str(tmp_path)).model_dump(mode="json")
        tree[part][0][key] = bad
        with pytest.raises(ValueError, match=key):
            Manifest.model_validate(tree)


def test_a_csv_report_leaves_what_is_not_finite_empty():
    assert [csv_text(value) for value in (math.nan, math.inf, [1.0, math.nan], 0.5, None)] == ["", "", "1 ", "0.5", ""]


def test_the_checks_themselves():
    values = np.array([[1.0, 2.0], [3.0, math.inf], [math.nan, 4.0]])
    with pytest.raises(UserError, match=r"^x is inf at row 11 \(2 .*3\).*; do this$"):
        require_finite(values, "x", 10, "do this")
    with pytest.raises(UserError, match=r"^x is nan at row 0\b"):
        require_finite(np.array(math.nan), "x")
    assert require_finite(values[:1], "x") is not None
    assert defined({"a": [1.0, math.nan, (math.inf, 2)], "b": -math.inf, "c": "nan"}) == {
        "a": [1.0, None, [None, 2]],
        "b": None,
        "c": "nan",
    }


WRITES = re.compile(
    r"pq\.write_table\(|ParquetWriter\(|np\.savez?\(|np\.savetxt\(|open_memmap\(|write_tensors\(|csv\.(Dict)?[wW]riter\(|write_csv\(|to_csv\("
    r"|ipc\.new_(stream|file)\(|\.tofile\(|write_array_header"
)
WRITERS = {
    "inspect.export": "each block goes through require_finite (_finite_blocks)",
    "save._write_file": "write_part refuses each tensor that is not finite first",
    "tensors.write_tensors": "writes what its callers give, who check",
    "sweep._as_file": "records of dmoe.sharding.planner.advice.sweep.as_records, which are checked",
    "npy._mapped": "each column goes through require_finite where it is copied in",
    "parquet.write_shard": "checks",
    "parquet.write": "ShardWriter checks each table (require_finite_columns)",
    "counting._spill": "tokens and their counts",
    "parts._write": "numbers that encoding has found finite; shards are made of them and checked",
    "shuffle.close": "sorted rows that ShardWriter has checked",
    "vocabulary.write_vocabulary": "tokens and their counts",
    "vocabulary._write": "tokens and their decayed counts, sums of finite numbers",
    "csv_files._as_csv": "figures through defined",
    "delta._write_rows": "checks",
    "delta._write_tokens": "tokens and their counts",
    "materialise._apply": "rows of scorers, which exports have checked, whose SHA-256 is the export's",
    "drift._window": "checks",
    "export._write_tables": "each chunk goes through require_finite (_chunks)",
    "export._write_dense": "checks",
    "score_dataset._write_batches": "checks",
    "exposures._write": "the table of _table, whose scores go through require_finite",
    "app.score": "probabilities of logits that Scorer.logits has found finite",
    "small_data.write_tokens": "whole numbers, for tests",
    "small_data.make_data_set": "draws of a normal distribution, for tests",
    "synthesize.synthesize": "the truth, logistic probabilities of bounded terms",
    "random_set.write_random_set": "checks",
    "predictions.write": "checks",
    "public_logs.main": "texts of public files, as they are",
}
"""Every function that writes numbers in a binary or tabular format, and what keeps those that are not finite out of it."""


def test_every_function_that_writes_numbers_is_known_to_check_them():
    """A new writer of parquet, Arrow, npy, safetensors or CSV has to call `dmoe.finite`; it belongs into WRITERS and the tests above."""
    found, unchecked = [], []
    for path in [*(ROOT / "dmoe").rglob("*.py"), *(ROOT / "tools").rglob("*.py")]:
        if "bench" in path.parts:
            continue
        text = path.read_text()
        functions = [one for one in ast.walk(ast.parse(text)) if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)]
        for match in WRITES.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            around = [one for one in functions if one.lineno <= line <= (one.end_lineno or 0)]
            inner = min(around, key=lambda one: (one.end_lineno or 0) - one.lineno, default=None)
            name = f"{path.stem}.{inner.name if inner else ''}"
            found.append(name)
            if WRITERS.get(name) == "checks" and not re.search(r"require_finite|defined\(", ast.get_source_segment(text, inner) or ""):  # type: ignore[arg-type]
                unchecked.append(name)
    assert sorted(set(found)) == sorted(WRITERS)
    assert not unchecked
