"""A small model is planned, written, read back whole, and refused once it is edited into something impossible."""

import json

import pytest

from dmoe.config.config import parse_config
from dmoe.errors import UserError
from dmoe.sharding.plan.plan_file import as_text, check_plan
from dmoe.sharding.plan.report.diff import difference
from dmoe.sharding.plan.report.plan_stats import figures_of
from dmoe.sharding.plan.report.show import plan_document
from dmoe.sharding.planner.cluster import parse_cluster
from dmoe.sharding.planner.planning_model import describe, manifest_of


def plan(text="", cluster="1x2:cpu"):
    config = parse_config("model: {embedding: {dim: 8}, expert_dim: 8}\ntrain: {batch_size: 64}\n" + text, "test")
    return describe(config, manifest_of({"C1": 400, "C2": 30, "C3": 2000}, "test")).plan(parse_cluster(cluster))


def test_a_plan_is_a_function_of_its_inputs_and_survives_its_file():
    made = plan()
    assert made == plan()
    assert json.loads(as_text(made)) == made
    check_plan(made, "p")


def test_mistakes_are_named():
    with pytest.raises(UserError, match="'C1'"):
        plan("sharding: {tables: {C11: {types: [row_wise]}}}")
    with pytest.raises(UserError, match="'h100'"):
        plan(cluster="1x2:h10")
    made = plan("sharding: {types: [table_wise]}")
    made["tables"]["C1"]["shards"][0]["rank"] = 2
    with pytest.raises(UserError, match=r"table 'C1': shard 0 .*rank 2"):
        check_plan(made, "p")


def test_what_is_sent_in_half_the_bytes_is_predicted_and_told_as_such():
    fp32, fp16 = (plan(f"sharding: {{types: [row_wise], comm_precision: {name}}}", "1x2:h100") for name in ("fp32", "fp16"))
    # C1 to C3, two ranks of 32 rows: ids of 8 bytes, lengths of 4; three experts' embeddings of 8 numbers, both ways.
    ids, floats = 3 * 32 * (8 / 2 + 4), 3 * 2 * 32 * 3 * 8
    sent = [[rank["sent"] for rank in made["predicted"]["ranks"]] for made in (fp32, fp16)]
    assert sent == [[ids + 4 * floats] * 2, [ids + 2 * floats] * 2]
    assert fp16["predicted"]["time_ms"] < fp32["predicted"]["time_ms"]
    assert fp16["hashes"] == fp32["hashes"]
    figures = figures_of(json.loads(as_text(fp16)), "p")
    assert [rank.sent for rank in figures.ranks] == sent[1]
    assert "embeddings sent in fp16" in plan_document(figures).text()
    assert any("fp32 and fp16" in note for note in difference(fp32, fp16, "a", "b").notes)


def test_how_it_is_sent_is_checked():
    with pytest.raises(UserError, match=r"comm_precision: bf16 "):
        plan("sharding: {comm_precision: bf16}")
    for wrong in ("fp8", None, ["fp16"]):
        with pytest.raises(UserError, match=r"^p: comm_precision: .*fp32.*fp16.*bf16"):
            check_plan({**plan(), "comm_precision": wrong}, "p")
    # A plan made before there was a choice.
    old = plan()
    del old["comm_precision"]
    assert figures_of(old, "p").comm_precision == "fp32"
