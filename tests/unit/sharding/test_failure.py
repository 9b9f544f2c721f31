"""explain-failure's advice, followed, makes the model fit; less of it does not; and what fits is told as such."""

import dataclasses
import json
import shlex

import pytest

from dmoe.cli.main import main
from dmoe.config.config import parse_config
from dmoe.errors import UserError
from dmoe.sharding.planner.advice import failure
from dmoe.sharding.planner.advice.failure import EFFECTS, explain, failure_document
from dmoe.sharding.planner.advice.remedies import levers_for
from dmoe.sharding.planner.cluster import GIB, PRESETS, Cluster
from dmoe.sharding.planner.planning_model import describe, manifest_of

CONFIG = """
model: {embedding: {dim: 32}, experts: [crossnet, {kind: mlp, hidden: [16]}], expert_dim: 8}
train: {batch_size: 4096}
"""
SIZES = {"C1": 6_000_000, "C2": 3_000_000, "C3": 1000}


def model(*overrides, sizes=SIZES):
    return describe(parse_config(CONFIG, "test", list(overrides)), manifest_of(sizes, "test"))


def cluster(hbm=1.5, ddr=0.25, nodes=1):
    """Ranks with so many GiB; the model takes 4.6 GB with its state."""
    return Cluster(nodes, 2, dataclasses.replace(PRESETS["a100-40"], name="tiny", hbm=hbm * GIB, ddr=ddr * GIB))


def follow(change, before, target, manifest):
    """The change as a person would make it, by what `how` says to type; plans anew, and raises where that does not fit."""
    words = shlex.split(change.how.split("; preprocess")[0]) if not change.how.startswith("preprocess") else []
    overrides = words[words.index("--set") + 1 :] if "--set" in words else []
    if "--cluster" in words:
        shape = words[words.index("--cluster") + 1]
        target = dataclasses.replace(target, nodes=int(shape.split("x")[0]))
        device = shape.split(":")[1]
        target = dataclasses.replace(target, device=PRESETS.get(device, target.device))
    return describe(parse_config(CONFIG, "test", [*before, *overrides]), manifest).plan(target, explain=False)


def test_what_fits_is_told_with_its_headroom():
    found = explain(model(), cluster(hbm=40))
    assert found.step is not None
    assert 0.9 < found.step.headroom < 1
    assert found.changes == ()
    assert failure_document(found).text().startswith("It fits 1x2:tiny: the fullest rank holds")


@pytest.fixture(scope="module")
def found():
    return explain(model(), cluster())


def test_every_change_makes_it_fit_and_the_amount_before_it_does_not(found):
    asked, here = model(), cluster()
    with pytest.raises(UserError):
        asked.plan(here)
    assert found.step is None
    kinds = {one.kind for one in found.changes}
    assert {"more nodes", "devices with more memory", "smaller dim", "fewer experts", "one table set for all experts"} <= kinds
    assert {"fewer ids a feature", "another optimizer of the tables"} <= kinds
    levers = {lever.kind: lever for lever in levers_for(asked, here, on_device=False)}
    for change in found.changes:
        manifest = asked.manifest
        if change.kind == "fewer ids a feature":
            cap = next(one.cap for one in levers[change.kind].attempts if one.what == change.what)
            manifest = manifest_of({name: min(rows, cap) for name, rows in SIZES.items()}, "test")
        plan = follow(change, [], here, manifest)
        assert plan["predicted"]["time_ms"] == change.step.tables_ms, change.kind
        # One amount less is not enough.
        attempts = levers[change.kind].attempts
        index = [one.what for one in attempts].index(change.what)
        if index and attempts[index - 1].cap is None:
            less = attempts[index - 1]
            with pytest.raises(UserError):
                describe(parse_config(CONFIG, "test", list(less.overrides)), asked.manifest).plan(less.cluster or here, explain=False)
    # What leaves the model as it is comes first.
    assert [one.effect for one in found.changes] == sorted(one.effect for one in found.changes)
    assert found.changes[0].effect == 0


def test_rows_rounded_up_are_advice_that_fits_the_rows_as_they_are(found, monkeypatch):
    monkeypatch.setattr(failure, "MANY", 0)
    rough = explain(model(), cluster())
    assert {one.kind for one in rough.changes} == {one.kind for one in found.changes}
    exact = {one.kind: one for one in found.changes}
    levers = {lever.kind: [one.what for one in lever.attempts] for lever in levers_for(model(), cluster(), on_device=False)}
    for change in rough.changes:
        if change.kind != "fewer ids a feature":
            follow(change, [], cluster(), model().manifest)
        # Rows are at most 1 % more, so hardly more of the lever is needed.
        amounts = levers[change.kind]
        assert 0 <= amounts.index(change.what) - amounts.index(exact[change.kind].what) <= 1, change.kind
        assert change.step.ms >= exact[change.kind].step.ms * 0.99, change.kind


def test_an_optimizer_that_is_not_enough_is_tried_with_more_nodes():
    asked, here = model(), cluster(hbm=1.1, ddr=0.05)
    found = explain(asked, here, on_device=True)
    by_kind = {one.kind: one for one in found.changes}
    both = by_kind["another optimizer of the tables, and more nodes"]
    assert both.what == "rowwise_adagrad instead of adagrad: one state a row, 2 nodes instead of 1"
    assert by_kind["more nodes"].step.ranks > both.step.ranks == 4
    plan = follow(both, ["sharding.types=[table_wise, row_wise, table_row_wise, data_parallel]"], here, asked.manifest)
    assert plan["optimizer"] == "rowwise_adagrad"


def test_the_largest_tables_are_named_with_exact_bytes(found):
    # Two sets of dim 32 side by side, float32, and Adagrad's state of the same size.
    assert found.tables[0] == ("C1", 6_000_000, 64, 6_000_000 * 64 * 4 * 2)
    assert found.needs == sum(SIZES.values()) * 64 * 4 * 2
    text = failure_document(found, top=1).text()
    assert "66.7%" in text
    assert "2 others" in text


def test_closed_types_and_constraints_are_opened():
    # Nothing but whole tables on one rank each: C1 alone is larger than a rank.
    closed = ["sharding.types=[table_wise]"]
    found = explain(model(*closed), cluster(hbm=3, ddr=8))
    by_kind = {one.kind: one for one in found.changes}
    assert follow(by_kind["sharding types"], closed, cluster(hbm=3, ddr=8), model().manifest)
    assert by_kind["sharding types"].effect == 0
    # Only the types were closed, so the host's memory was not tried: moving a table there is another way.
    assert by_kind["tables in the host's memory"].what == "C1"
    pinned = ["sharding.tables={C1: {ranks: [0], types: [table_wise]}}"]
    found = explain(model(*pinned), cluster(hbm=3, ddr=0.25))
    assert "constraint on C1" in {one.kind for one in found.changes}


def test_tables_in_the_hosts_memory_count_as_a_failure_if_asked():
    roomy = cluster(hbm=2, ddr=16)
    assert explain(model(), roomy).step.host_memory > 0
    found = explain(model(), roomy, on_device=True)
    assert found.step is None
    by_kind = {one.kind: one for one in found.changes}
    assert by_kind["more nodes"].step.host_memory == 0
    assert by_kind["tables in the host's memory"].step.host_memory > 0


def test_a_dense_part_without_room_is_named_and_not_the_tables():
    found = explain(model(), cluster(hbm=0.001))
    assert found.step is None
    assert found.shortage.startswith("the dense part")
    assert "the tables are" not in failure_document(found).text().partition("\n\n")[0]


def test_the_explanation_is_plain_data_and_says_what_is_not_offered(found):
    kept = json.loads(json.dumps(found.as_json()))
    assert kept["fits"] is False
    assert kept["changes"][0]["effect"] == EFFECTS[0]
    assert kept["changes"][0]["step"]["usd_a_billion"] > 0
    assert "fp16" in kept["not_offered"][0]
    assert any(one["kind"] == "smaller batch" for one in kept["no_help"])


@pytest.mark.parametrize(("hbm", "code"), [("40e9", 0), ("1.2e9", 1)])
def test_the_commands_exit_code_says_whether_it_fits(tmp_path, capsys, hbm, code):
    (tmp_path / "c.yaml").write_text(CONFIG)
    (tmp_path / "s.yaml").write_text(json.dumps(SIZES))
    (tmp_path / "gpu.yaml").write_text(f"{{base: a100-40, name: mine, hbm: {hbm}, ddr: 3e7}}")
    arguments = ["--config", f"{tmp_path}/c.yaml", "--cardinalities", f"{tmp_path}/s.yaml", "--cluster", f"1x2:{tmp_path}/gpu.yaml"]
    words = ["plan", "explain-failure", *arguments, "--json", "--set", "model.experts=[crossnet]"]
    assert main(words) == code
    told = json.loads(capsys.readouterr().out)
    assert told["fits"] is (code == 0)
    assert bool(told["changes"]) is (code == 1)
    # One expert less there is none; a cluster file has no name to type.
    assert "fewer experts" not in {one["kind"] for one in told["changes"]}
    assert all("YOUR_FILE" in one["how"] for one in told["changes"] if one["kind"] == "more nodes")


def test_a_misspelt_table_is_a_mistake_and_no_lack_of_memory(tmp_path, capsys):
    (tmp_path / "c.yaml").write_text(CONFIG)
    (tmp_path / "s.yaml").write_text(json.dumps(SIZES))
    arguments = ["--config", f"{tmp_path}/c.yaml", "--cardinalities", f"{tmp_path}/s.yaml", "--cluster", "1x1:h100"]
    words = ["plan", "explain-failure", *arguments, "--set", "sharding.tables.C33.types=[row_wise]"]
    assert main(words) == 2
    assert "did you mean 'C3'" in capsys.readouterr().err
