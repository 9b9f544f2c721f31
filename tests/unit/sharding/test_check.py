"""A plan against limits: the offending ranks are named, a hand edit is judged as it is, exit codes are what CI waits for."""

import json
import re

import pytest

from dmoe.cli.main import main
from dmoe.config.config import parse_config
from dmoe.errors import UserError
from dmoe.sharding.plan.check import Limits, as_data, as_lines, findings, model_finding, share
from dmoe.sharding.plan.plan_file import as_text
from dmoe.sharding.plan.report.plan_stats import figures_of
from dmoe.sharding.planner.cluster import parse_cluster
from dmoe.sharding.planner.planning_model import describe, manifest_of
from tests.unit.sharding.small_plans import plan_of, table


def even(moved_rank=1):
    tables = {f"T{i}": table(1000, 16, "table_wise", (0, 0, 1000, 16, i % 2)) for i in range(4)}
    tables["T3"]["shards"][0]["rank"] = moved_rank
    return plan_of(tables)


def broken(plan, **limits):
    return {one.what: [rank for rank, _ in one.offending] for one in findings(figures_of(plan, "p"), Limits(**limits)) if not one.passed}


def test_an_even_plan_passes_and_a_table_moved_by_hand_fails_it():
    limits = {"max_imbalance": 1.2, "max_tables_a_rank": 2, "min_headroom": 0.1}
    assert broken(even(), **limits) == {}
    # The kept figures would still say that all is well: none are in the file.
    assert broken(even(moved_rank=0), **limits) == {"imbalance": [0], "tables a rank": [0]}


def test_a_limit_holds_at_its_very_value():
    figures = figures_of(even(moved_rank=0), "p")
    assert broken(even(0), max_imbalance=figures.imbalance, max_time_ms=figures.time_ms) == {}
    assert broken(even(0), max_imbalance=figures.imbalance - 1e-3) == {"imbalance": [0]}
    assert broken(even(0), max_time_ms=figures.time_ms - 1e-6) == {"predicted time": [0]}


def test_what_does_not_fit_is_found_without_asking():
    plan = plan_of({"T": table(300_000_000, 64, "table_wise", (0, 0, 300_000_000, 64, 1))}, "1x2:h100")
    assert broken(plan) == {"fits in memory": [1]}
    # In the host's memory by UVM it would, but not with 90 % free there asked of the device.
    assert broken(even(), min_headroom=0.9999999) == {"headroom": [0, 1]}


def test_many_offenders_are_folded_and_counted():
    tables = {f"T{i}": table(100, 16, "table_wise", (0, 0, 100, 16, i)) for i in range(20)}
    found = findings(figures_of(plan_of(tables, "3x8:h100"), "p"), Limits(max_imbalance=1.1))
    told = list(as_lines(found))
    assert sum(line.startswith("        rank ") for line in told) == 8
    assert any("12 more" in line for line in told)
    assert not as_data(found)["passed"]


def test_a_plan_of_another_model_batch_or_constraints_is_told_apart():
    base = "model: {embedding: {dim: 8}, expert_dim: 8}\ntrain: {batch_size: 64}\n"

    def described(text="", rows=400):
        return describe(parse_config(base + text, "test"), manifest_of({"C1": rows, "C2": 30}, "test"))

    plan = described().plan(parse_cluster("1x2:cpu"))
    assert model_finding(plan, described(), "p").passed
    assert "400 x" in model_finding(plan, described(rows=401), "p").note
    assert "other constraints" in model_finding(plan, described("sharding: {types: [table_wise]}"), "p").note
    note = model_finding(plan, described("sharding: {comm_precision: fp16}"), "p").note
    assert re.search(r"fp32.*sharding\.comm_precision.*fp16", note)
    config = parse_config(base, "test", ["train.batch_size=128"])
    assert re.search("batch.*64.*128", model_finding(plan, describe(config, described().manifest), "p").note)


@pytest.mark.parametrize(("text", "value"), [("10%", 0.1), ("0.1", 0.1), (" 5 % ", 0.05), (".5", 0.5), ("0", 0.0)])
def test_a_share_is_read_both_ways(text, value):
    assert share(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["ten", "-1", "", "10%%", "nan"])
def test_what_is_no_share_is_refused(text):
    with pytest.raises(UserError, match="10%"):
        share(text)


def test_impossible_limits_are_refused():
    for limits in ({"max_imbalance": 0.9}, {"max_imbalance": float("nan")}, {"min_headroom": 10.0}, {"max_time_ms": -1.0}):
        with pytest.raises(UserError, match=r"--m.*expected"):
            Limits(**limits)


def test_exit_codes_of_the_command(tmp_path, capsys):
    paths = {}
    for name, plan in (("even", even()), ("uneven", even(0))):
        paths[name] = tmp_path / f"{name}.json"
        paths[name].write_text(as_text(plan))

    def run(*words):
        return main(["plan", "check", *map(str, words)])

    assert run(paths["even"], "--max-imbalance", "1.2", "--min-headroom", "10%") == 0
    capsys.readouterr()
    assert run(paths["uneven"], "--max-imbalance", "1.2", "--json") == 1
    offending = [one["offending"] for one in json.loads(capsys.readouterr().out)["findings"] if not one["passed"]]
    assert [[rank["rank"] for rank in ranks] for ranks in offending] == [[0]]
    assert run(tmp_path / "none.json") == 2
    assert "none.json" in capsys.readouterr().err
    assert run(paths["even"], "--set", "a=1") == 2
    assert "--config" in capsys.readouterr().err
