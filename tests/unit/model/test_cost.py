"""The cost told before training against counting."""

import pytest
import torch

from dmoe.config.config import parse_config
from dmoe.data.dataset.manifest import CategoricalFeature, DenseFeature, Manifest
from dmoe.model.budget.cost import cost_of, cost_of_parts, in_one_line, together
from dmoe.model.budget.sizes import human
from dmoe.model.build import build_model, make_blueprint

ROWS = (100, 30)


@pytest.fixture(scope="module")
def manifest():
    return Manifest(
        dataset="x",
        dense=(DenseFeature(name="I1", transform="none", missing_share=0.0),),
        categorical=tuple(
            CategoricalFeature(name=f"C{i}", kind="token", cardinality=rows, missing_share=0.0, rare_share=0.0)
            for i, rows in enumerate(ROWS)
        ),
        splits={},
    )


def config(text: str):
    return parse_config(text, "test")


def test_counts_of_a_model_by_hand(manifest):
    cost = cost_of(config("model: {embedding: {dim: 10}, experts: [{kind: mlp, hidden: [16]}, cin], expert_dim: 8}"), manifest)
    assert cost.embedding_parameters == 130 * 10 * 2
    # Rows of 10 are stored as 12.
    assert [one.stored_bytes for one in cost.sets] == [130 * 12 * 4] * 2
    assert cost.table_state_bytes == cost.embedding_bytes
    assert (cost.lookups, cost.lookup_bytes) == (2, 2 * 24 * 4)
    mlp = 2 * 30 * 16
    assert cost.flops["projections"] >= 2 * 16 * 8
    assert cost.flops["experts"] > mlp
    assert cost.scorer_bytes("int8") == 130 * 20 + 4 * 130 * 2 + 4 * cost.dense_parameters


def test_dense_parameters_and_flops_are_the_models(manifest):
    settings = config(
        "model: {embedding: {dim: 4, sets: shared}, experts: [{kind: mlp, hidden: [6]}], expert_dim: 5, tower: {hidden: [3]}}"
    )
    mixture = build_model(settings, make_blueprint(settings, manifest)).mixture
    cost = cost_of(settings, manifest)
    assert cost.dense_parameters == sum(p.numel() for p in mixture.parameters())
    linear = [module for module in mixture.modules() if isinstance(module, torch.nn.Linear)]
    assert cost.total_flops == sum(2 * m.in_features * m.out_features for m in linear) + 2 * 5


def test_counting_activations_teaches_batch_norm_nothing(manifest):
    """One rank may ask, so no collective may wait for the others, and no running moment may move."""
    settings = config("model: {experts: [mlp, cin], expert_dim: 4, expert_norm: batch}")
    blueprint = make_blueprint(settings, manifest)
    mixture = build_model(settings, blueprint).mixture
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dmoe.model.batch_norm.all_reduce_sum", lambda x: pytest.fail("a collective"))
        cost_of_parts(settings, blueprint, mixture)
    assert mixture.norm.batches == 0
    assert not mixture.norm.running_mean.any()
    assert not mixture.norm.apart


def test_activations_are_what_autograd_keeps(manifest):
    small = cost_of(config("model: {experts: [{kind: mlp, hidden: [8]}], expert_dim: 4}"), manifest)
    large = cost_of(config("model: {experts: [{kind: mlp, hidden: [800]}], expert_dim: 4}"), manifest)
    # A ReLU layer of 792 units more keeps its output, once for the activation and the next product.
    assert 792 * 4 <= large.saved_bytes - small.saved_bytes <= 792 * 4 * 2


def test_row_wise_adagrad_keeps_one_number_a_row(manifest):
    cost = cost_of(config("optimizer: {tables: {kind: rowwise_adagrad}}\nmodel: {experts: [mlp, cin]}"), manifest)
    assert cost.table_state_bytes == 4 * 130 * 2
    assert cost_of(config("optimizer: {tables: {kind: sgd}}"), manifest).table_state_bytes == 0


def test_the_copy_of_a_checkpoint_is_told_where_there_will_be_one(manifest):
    cost = cost_of(config("model: {embedding: {dim: 64}}"), manifest)
    assert cost.checkpoint_bytes(1) == cost.embedding_bytes + cost.table_state_bytes + 3 * 4 * cost.dense_parameters
    both = human(cost.training_bytes(1024, 1) + cost.checkpoint_bytes(1))
    assert f"({both} while a checkpoint is written from its copy)" in in_one_line(cost, 1024, 1, copy_limit=cost.checkpoint_bytes(1))
    assert "copy" not in in_one_line(cost, 1024, 1, copy_limit=cost.checkpoint_bytes(1) - 1)


def test_ranks_share_tables_and_an_ensemble_adds_up(manifest):
    cost = cost_of(config("model: {embedding: {dim: 64}}"), manifest)
    assert cost.training_bytes(1024, 1) > cost.training_bytes(1024, 4)
    both = together([cost, cost])
    assert (both.embedding_parameters, both.total_flops) == (2 * cost.embedding_parameters, 2 * cost.total_flops)
    assert len(both.sets) == 2 * len(cost.sets)
