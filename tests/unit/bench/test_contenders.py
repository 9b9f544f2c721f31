"""The contenders of tools/bench/train.py train the same model on the same batches; those that come without a library of their own."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from dmoe.model.build import build_model, build_task, make_blueprint
from dmoe.model.losses.objective import TrainTask
from tools.bench.builders import plain
from tools.bench.builders.mixture import Loss, parameters_of
from tools.bench.case import Case, config_of, ids_of, make_batches, manifest_of

CASES = [Case(model, rows=7, features=3, dim=4, batch=32) for model in ("dmoe", "dcnv2")]


def unsharded(case: Case) -> TrainTask:
    config = config_of(case)
    return build_task(config, build_model(config, make_blueprint(config, manifest_of(case)), "cpu"))


@torch.no_grad()
def copy_weights(task: TrainTask, model: plain.Model) -> None:
    """dmoe's weights into the plain model: both have their layers in one order, cut into other shapes."""
    sets = model.sets
    tables = list(model.tables.parameters())
    for index, weight in enumerate(task.model.embedding.parameters()):
        for number, part in enumerate(weight.chunk(sets, 1)):
            tables[number * model.features + index].copy_(part)
    for mine, other in dense_pairs(task, model):
        other.copy_(mine.reshape(other.shape))


def dense_pairs(task: TrainTask, model: plain.Model) -> Iterator[tuple[torch.nn.Parameter, torch.nn.Parameter]]:
    """Every weight of dmoe's that is no table's, with the plain model's."""
    ours, theirs = task.model.mixture, model.mixture
    modules = ((ours.projections, theirs.projections), (ours.gate, theirs.gates), (ours.tower, theirs.tower))
    for mine, other in (*modules, (ours.dense_fields, theirs.dense)):
        yield from zip(mine.parameters(), other.parameters(), strict=True)
    for mine, other in zip(ours.experts, theirs.experts, strict=True):
        cross = getattr(mine, "cross", None)
        sources = [p for pair in zip(cross.kernels, cross.bias, strict=True) for p in pair] if cross else mine.parameters()
        yield from zip(sources, other.parameters(), strict=True)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.model)
def test_the_plain_contender_has_dmoes_loss_and_gradients_at_its_weights(case: Case) -> None:
    task, model = unsharded(case), plain.Model(case)
    copy_weights(task, model)
    (batch,) = make_batches(case, 0, 1)
    loss, (losses, *_) = task(batch)
    loss.backward()
    theirs = Loss()(*model(batch.dense_BD, ids_of(batch, case.features)), batch.label_B)
    theirs.backward()
    torch.testing.assert_close(theirs, loss, rtol=1e-5, atol=1e-6)
    assert losses.correlation > 0.01 or case.model == "dcnv2"
    for mine, other in dense_pairs(task, model):
        torch.testing.assert_close(mine.grad.reshape(other.shape), other.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.model)
@pytest.mark.parametrize("experts", [0, 4])
def test_the_plain_contender_has_as_many_weights_as_dmoe(case: Case, experts: int) -> None:
    case = replace(case, experts=experts if case.model == "dmoe" else 0)
    task, model = unsharded(case), plain.Model(case)
    assert parameters_of(model.tables) == parameters_of(task.model.embedding) == case.weight_bytes // 4
    assert parameters_of(model.mixture) == parameters_of(task.model.mixture)


def test_ranks_have_rows_of_their_own_and_every_contender_gets_the_same() -> None:
    case = Case(rows=50, features=2, batch=64, ranks=2)
    (first, *_), (again, *_), (other, *_) = make_batches(case, 0), make_batches(case, 0), make_batches(case, 1)
    assert len(first.label_B) == 32
    assert torch.equal(ids_of(first, 2), ids_of(again, 2))
    assert torch.equal(first.dense_BD, again.dense_BD)
    assert not torch.equal(ids_of(first, 2), ids_of(other, 2))
    assert set(ids_of(first, 2).flatten().tolist()) <= set(range(50))
