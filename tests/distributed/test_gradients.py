"""Gradients of dense parameters and of tables, over ranks and with a padded last batch, against one float64 process without TorchRec.

Shapes: N rows of the global batch, M experts, D dims.
"""

import numpy as np
import pytest
import torch
from torch import Tensor

from dmoe.data.dataset.manifest import load_manifest
from dmoe.data.dataset.reading.reader import Reader
from dmoe.model.build import build_model, make_blueprint
from dmoe.sharding.plan.initialize import initial_block
from dmoe.testing.small_run import dense_weights, largest_difference, open_small, small_config, train_steps, whole_tables

ROWS = 61
"""Of the only batch: no number of ranks here but 1 divides it, so the last ranks get padding."""
# Embeddings far from 0, so that gradients are large beside the rounding of the weights that they are read from.
SGD = (
    "correlation.norm=l1",
    "model.embedding.init_std=0.3",
    "optimizer.tables={kind: sgd, lr: 1.0}",
    "optimizer.dense={kind: sgd, lr: 1.0}",
    f"train.batch_size={ROWS}",
)


def one_step(data: str, *overrides: str) -> tuple[float, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The loss, and the negative gradients: under SGD at rate 1 they are what the weights moved by."""
    session = open_small(small_config(data, *SGD, *overrides))
    tables, dense = whole_tables(session), dense_weights(session)
    (loss,) = train_steps(session, 1)
    moved = {name: after - tables[name] for name, after in whole_tables(session).items()}
    return loss, moved, {name: after - dense[name] for name, after in dense_weights(session).items()}


def correlation_of(outputs_NMD: Tensor) -> Tensor:
    """The canonical loss from its definition, column by column."""
    z_NMD = outputs_NMD - outputs_NMD.mean(0)
    z_NMD = z_NMD / z_NMD.norm(dim=0)
    experts = outputs_NMD.shape[1]
    pairs = [(z_NMD[:, p].T @ z_NMD[:, q]).abs().mean() for p in range(experts) for q in range(p + 1, experts)]
    return sum(pairs) * 2 / (experts * (experts - 1))


def reference(data: str, *overrides: str) -> tuple[float, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The same step by plain tensors: indexing for the lookup, autograd for the gradients, float64 throughout."""
    config = small_config(data, *SGD, *overrides)
    manifest = load_manifest(data)
    blueprint = make_blueprint(config, manifest)
    mixture = build_model(config, blueprint).mixture.double()
    tables = {
        (feature.name, index): initial_block(0, f"{feature.name}/{index}", 0, feature.cardinality, dim, config.model.embedding.init_std)
        .double()
        .requires_grad_()
        for feature in blueprint.features
        for index, dim in enumerate(blueprint.set_dims)
    }
    reader = Reader(data, manifest, "train", blueprint.features, blueprint.dense, shuffle="window", prefetch=0)
    batch = next(reader.batches(ROWS, 0, 1))
    sets = [
        torch.stack([tables[f.name, index][batch.sparse[f.name].values()] for f in blueprint.features], 1)
        for index in range(len(blueprint.set_dims))
    ]
    mixture.controls.expert_logits = True
    outputs = mixture.train()(batch.dense_BD.double(), sets)
    label = batch.label_B.double()
    loss = torch.nn.functional.binary_cross_entropy_with_logits(outputs.logit_B, label)
    target = {
        "hidden": outputs.hidden_BMD,
        "logit": outputs.expert_logit_BM[:, :, None],
        "residual": (label[:, None] - outputs.expert_logit_BM.sigmoid())[:, :, None],
    }[config.correlation.target]
    told = loss + config.correlation.alpha * correlation_of(target)
    loss = told
    if config.optimizer.embedding_l2:
        loss = loss + config.optimizer.embedding_l2 / 2 * sum(x.square().sum((1, 2)) for x in sets).mean()
    loss.backward()
    moved = {f"{feature}/{index}": -weight.grad.numpy() for (feature, index), weight in tables.items()}
    return float(told.detach()), moved, {name: -parameter.grad.numpy() for name, parameter in mixture.named_parameters()}


@pytest.mark.parametrize(
    ("world_size", "reduce", "types"),
    [
        (1, "moments", "table_wise"),
        (1, "gather", "data_parallel"),
        (2, "moments", "data_parallel"),
        (2, "gather", "row_wise"),
        (3, "moments", "row_wise"),
        (3, "moments", "table_wise"),
        (3, "gather", "data_parallel"),
        (3, "gather", "table_wise"),
    ],
)
def test_gradients_equal_one_float64_process(ranks, data_set, world_size, reduce, types):
    overrides = (f"correlation.reduce={reduce}", f"sharding.types=[{types}]")
    check(ranks(world_size).run(one_step, data_set, *overrides), reference(data_set, *overrides))


@pytest.mark.parametrize(
    "overrides",
    [
        ("correlation.target=residual", "optimizer.embedding_l2=0.1"),
        ("correlation.target=logit", "model.gate=elementwise"),
        ("model.embedding.sets=shared", "model.gate=mean"),
        ("model.embedding.dim=10", "model.embedding.layout=separate"),
        ("model.embedding.dim=10",),
        ("model.mixture=logits", "model.expert_tower=own", "correlation.target=residual"),
        ("model.mixture=logits", "model.gate=mmoe", "model.embedding.layout=separate"),
    ],
    ids=str,
)
def test_gradients_of_the_other_switches(ranks, data_set, overrides):
    check(ranks(2).run(one_step, data_set, *overrides), reference(data_set, *overrides))


def check(results, expected) -> None:
    loss, tables, dense = expected
    for got_loss, got_tables, got_dense in results:
        assert got_loss == pytest.approx(loss, rel=1e-5)
        assert largest_difference(tables, got_tables) < 2e-4
        assert largest_difference(dense, got_dense) < 2e-4
