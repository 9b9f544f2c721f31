"""Whatever the product writes as JSON, its own strict reader takes: one function writes it, and what is undefined is null."""

import ast
import json
import math
from pathlib import Path

import pytest
import torch

from dmoe.checkpoint import index as index_module
from dmoe.checkpoint.index import INDEX, Index, read_index, write_index
from dmoe.checkpoint.progress import Progress, progress_from
from dmoe.config.config import parse_config
from dmoe.data.prepare.schema import load_schema
from dmoe.errors import UserError
from dmoe.json_text import defined, format_json, parse_json
from dmoe.train.optimizer.schedule import Schedule
from dmoe.train.output.log_window import Window
from dmoe.train.run.run_dir import RunDir

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = [path for folder in ("dmoe", "launch", "tools") for path in (ROOT / folder).rglob("*.py") if "bench" not in path.parts]


def test_json_is_written_by_one_function():
    writers = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in PROGRAMS
        if "testing" not in path.parts
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in ("dump", "dumps") and getattr(node.value, "id", "") == "json"
    ]
    assert len(writers) == 1, writers
    assert writers[0].startswith("dmoe/json_text.py:")


def test_it_writes_what_json_writes_and_refuses_what_the_reader_refuses():
    sound = {"a": [1, -2.5e-300, True, None, "\u00e9"], "b": {"c": 1 << 70}}
    assert format_json(sound) == json.dumps(sound)
    assert format_json(sound, indent=1, sort_keys=True) == json.dumps(sound, indent=1, sort_keys=True)
    for value, place in (({"ranks": [{"ms": math.nan}]}, "ranks.0.ms is nan"), ([1.0, (2.0, -math.inf)], "1.1 is -inf"), (math.inf, "inf")):
        with pytest.raises(ValueError, match=place):
            format_json(value)
        assert parse_json(format_json(defined(value))) == defined(value)
    assert defined({"auc": math.nan, "by": (math.inf, 0.5), "n": 3}) == {"auc": None, "by": [None, 0.5], "n": 3}


def test_figures_without_a_value_are_null_in_a_run_s_files(tmp_path):
    run = RunDir(str(tmp_path))
    figures = {"auc": None, "ne": math.nan, "cec_matrix": [[0.5, math.inf]], "rows": 3}
    run.log("validation", {"step": 1, **figures})
    run.finish(figures)
    run.finish(figures, "evaluation.json")
    for name in ("metrics.jsonl", "metrics.json", "evaluation.json"):
        found = parse_json((tmp_path / name).read_text())
        assert (found["auc"], found["ne"], found["cec_matrix"], found["rows"]) == (None, None, [[0.5, None]], 3)


def an_index(progress):
    return Index(
        {"C1/0": (2, 4)},
        (index_module.Piece("C1/0", "weight", 0, 0, 2, 4, "tables-00000-00000.safetensors", "k"),),
        {"tables-00000-00000.safetensors": (9, "a" * 64), "dense.safetensors": (9, "b" * 64)},
        progress,
    )


def progress_of(validations):
    """Where a run stands after validations of (AUC, logloss), step after step."""
    progress = Progress(schedule={"plateau": 1.0, "waited": 0, "best": None})
    for auc, logloss in validations:
        progress.step += 1
        progress.validated(auc, logloss)
    return progress


def test_a_checkpoint_without_an_auc_is_read_back(tmp_path):
    progress = progress_of([(None, 0.7), (None, 0.6), (None, 0.65)])
    assert (progress.best_auc, progress.best_logloss, progress.best_step, progress.waited) == (None, 0.6, 2, 1)
    write_index(str(tmp_path), an_index(vars(progress)))
    assert progress_from(read_index(str(tmp_path)).progress, "x") == progress


def test_an_auc_decides_where_there_is_one():
    assert progress_of([(0.7, 0.5), (0.8, 0.9), (0.75, 0.1)]).best_step == 2
    mixed = progress_of([(None, 0.1), (0.6, 0.9), (None, 0.05)])
    assert (mixed.best_step, mixed.best_auc, mixed.best_logloss) == (2, 0.6, None)


def test_a_checkpoint_of_minus_infinity_which_was_written_once_is_read(tmp_path):
    """`best_auc` was -Infinity where the validation rows had one label only; its index is no JSON, but sound otherwise."""
    old = {key: value for key, value in vars(progress_of([(None, 0.7)])).items() if key != "best_logloss"} | {"best_auc": -math.inf}
    write_index(str(tmp_path), an_index(old | {"best_auc": None}))
    content = json.loads((tmp_path / INDEX).read_text())
    content["progress"]["best_auc"] = -math.inf
    content.pop("checksum")
    content["checksum"] = index_module.hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    (tmp_path / INDEX).write_text(json.dumps(content))
    progress = progress_from(read_index(str(tmp_path)).progress, "x")
    assert (progress.best_auc, progress.best_step, progress.step) == (None, 1, 1)
    (tmp_path / INDEX).write_text(json.dumps(content).replace('"step": 1', '"step": 2'))
    with pytest.raises(UserError, match=f"{INDEX}: .*checksum"):
        read_index(str(tmp_path))
    (tmp_path / INDEX).write_text(json.dumps(content | {"progress": content["progress"] | {"seconds": math.inf}}))
    with pytest.raises(UserError, match=f"{INDEX}: damaged"):
        read_index(str(tmp_path))


def test_a_window_with_a_sum_that_is_not_finite_is_kept_and_read_back():
    window = Window(4, torch.device("cpu"))
    window.steps, window.sums = 1, torch.tensor([0.5, math.inf, math.nan, 64.0], dtype=torch.float64)
    kept = parse_json(format_json(window.state()))
    assert kept == {"since": 4, "steps": 1, "sums": [0.5, None, None, 64.0]}
    progress_from({"step": 5, "schedule": {"plateau": 1.0, "waited": 0, "best": None}, "window": kept}, "x")
    again = Window(4, torch.device("cpu"), kept)
    assert again.sums.isfinite().tolist() == [True, False, False, True]


def test_a_schedule_judges_a_plateau_by_logloss_where_there_is_no_auc():
    config = parse_config("optimizer: {schedule: {plateau_factor: 0.5}}", "test").optimizer.schedule
    schedule = Schedule(config, 10)
    for logloss in (0.7, 0.6, 0.65):
        schedule.validated(-logloss)
    assert (schedule.plateau, schedule.best) == (0.5, -0.6)
    assert parse_json(format_json(schedule.state())) == schedule.state()


@pytest.mark.parametrize("value", [".inf", "-.inf", ".nan"])
def test_a_number_that_no_file_of_ours_could_hold_is_refused_where_it_is_given(tmp_path, value):
    with pytest.raises(UserError, match=r"sharding\.tables\.C1\.pooling_factor: .*number"):
        parse_config(f"sharding: {{tables: {{C1: {{pooling_factor: {value}}}}}}}", "test")
    (tmp_path / "schema.yaml").write_text(
        f"format: csv\nlabel: click\ncategorical: [{{name: b, column: price, bucket: {{edges: [0, {value}]}}}}]\n"
    )
    with pytest.raises(UserError, match=r"schema\.yaml: .*edges"):
        load_schema(str(tmp_path / "schema.yaml"))


@pytest.mark.parametrize(
    "text",
    [b'["\\u0000"]', '{"\\u0000": 1}', '[{"a": "\\uD800"}]', b'["\xed\xa0\x80"]', '["\ud800"]', '["\\ude00\\ud83d"]', "[" * 65 + "]" * 65],
)
def test_it_refuses_half_characters_and_deep_nesting(text):
    with pytest.raises(ValueError, match=r"half a character|64"):
        parse_json(text)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ('"\\\\u0000"', "\\u0000"),
        ('["\\ud83d\\ude00", "\U0001f600", "\ud7ff", "\\u00e9"]', ["\U0001f600", "\U0001f600", "\ud7ff", "\u00e9"]),
        ('{"a": "\u00e9"}'.encode("utf-16"), {"a": "\u00e9"}),
        (b"\xef\xbb\xbf17", 17),
    ],
)
def test_it_reads_what_only_looks_like_them(text, read):
    assert parse_json(text) == read == json.loads(text)


def test_it_reads_sixty_four_levels():
    assert parse_json("[" * 64 + "1" + "]" * 64) == json.loads("[" * 64 + "1" + "]" * 64)
