"""From config and manifest to a model."""

import pytest
import torch

from dmoe.config.config import parse_config
from dmoe.errors import UserError
from dmoe.model.build import build_model, make_blueprint
from dmoe.testing.small_data import make_data_set


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return make_data_set(tmp_path_factory.mktemp("data"), rows={"train": 20})


def blueprint(manifest, text):
    return make_blueprint(parse_config(text, "test"), manifest)


def test_variants_have_the_table_sets_of_their_names(manifest):
    assert blueprint(manifest, "model: {experts: [mlp, mlp, mlp]}").set_of_expert == (0, 1, 2)
    shared = blueprint(manifest, "model: {experts: [mlp, mlp, mlp], embedding: {sets: shared, dim: 7}}")
    assert (shared.set_of_expert, shared.set_dims) == ((0, 0, 0), (7,))


def test_several_experts_on_one_set_and_dims_of_their_own(manifest):
    made = blueprint(
        manifest, "model: {experts: [{kind: mlp, table_set: 0}, {kind: cin, table_set: 1, dim: 4}, {kind: crossnet, table_set: 0}]}"
    )
    assert (made.set_of_expert, made.set_dims) == ((0, 1, 0), (16, 4))


def test_rowwise_adagrad_lays_tables_out_separately(manifest):
    assert len(blueprint(manifest, "optimizer: {tables: {kind: rowwise_adagrad}}").tables) == 12
    assert len(blueprint(manifest, "{}").tables) == 4


def test_dense_weights_are_a_function_of_the_seed_alone(manifest):
    weights = []
    for layout in ("wide", "separate"):
        torch.manual_seed(len(layout))
        config = parse_config(f"model: {{embedding: {{layout: {layout}}}}}", "test")
        weights.append(build_model(config, make_blueprint(config, manifest)).mixture.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data: {features: [C11]}", "data.features: no feature 'C11' in the data set, did you mean 'C1'?"),
        ("model: {experts: [mlpp]}", "mlp"),
        ("model: {experts: [{layers: 3}]}", "names no 'kind'"),
        ("model: {experts: [{kind: mlp, table_set: 1}]}", "table sets are [1], expected 0 to 0"),
        ("model: {experts: [{kind: mlp, table_set: 0, dim: 4}, {kind: mlp, table_set: 0}]}", "wants dim 16 of table set 0"),
        ("model: {experts: [{kind: crossnet, layers: 3}]}", "did you mean 'num_layers'?"),
    ],
)
def test_mistakes_are_named(manifest, text, message):
    config = parse_config(text, "test")
    with pytest.raises(UserError) as error:
        build_model(config, make_blueprint(config, manifest))
    assert message in str(error.value)
