"""A small model is planned, written, read back whole, and refused once it is edited into something impossible."""

import json

import pytest

from dmoe.config import parse_config
from dmoe.errors import UserError
from dmoe.sharding.cluster import parse_cluster
from dmoe.sharding.described import describe, manifest_of
from dmoe.sharding.kept import as_text, check_plan


def plan(text="", cluster="1x2:cpu"):
    config = parse_config("model: {embedding: {dim: 8}, expert_dim: 8}\ntrain: {batch_size: 64}\n" + text, "test")
    return describe(config, manifest_of({"C1": 400, "C2": 30, "C3": 2000}, "test")).plan(parse_cluster(cluster))


def test_a_plan_is_a_function_of_its_inputs_and_survives_its_file():
    made = plan()
    assert made == plan()
    assert json.loads(as_text(made)) == made
    check_plan(made, "p")


def test_mistakes_are_named():
    with pytest.raises(UserError, match="did you mean 'C1'"):
        plan("sharding: {tables: {C11: {types: [row_wise]}}}")
    with pytest.raises(UserError, match="did you mean 'h100'"):
        plan(cluster="1x2:h10")
    made = plan("sharding: {types: [table_wise]}")
    made["tables"]["C1"]["shards"][0]["rank"] = 2
    with pytest.raises(UserError, match="table 'C1': shard 0 is on rank 2"):
        check_plan(made, "p")
