"""The Python API trains what the command line trains, on any number of ranks."""

import numpy as np
import pytest
import torch

import dmoe
from dmoe import distributed
from dmoe.data.dataset.manifest import load_manifest
from dmoe.testing.small_run import small_config, train_steps, whole_tables

STEPS = 6


class Steps(dmoe.Callback):
    def __init__(self):
        self.steps, self.figures = [], []

    def on_step(self, trainer, losses):
        self.steps.append(trainer.progress.step)

    def on_evaluation(self, trainer, figures):
        self.figures.append(figures)


def batches_of(trainer: dmoe.Trainer, steps: int, start_row: int = 0):
    reader = trainer.session.reader("train", shuffled=True)
    return reader.batches(trainer.config.train.batch_size, distributed.rank(), distributed.world_size(), 0, start_row, steps)


def by_loop(data: str) -> tuple[list[float], list[float], dict]:
    """Losses of the command line's loop, of `step` and of `fit`; the weights of the latter two."""
    config = small_config(data)
    from dmoe.train.session import open_session

    session = open_session(config, load_manifest(data), torch.device("cpu"))
    expected = train_steps(session, STEPS)
    told = Steps()
    stepped = dmoe.Trainer(config, load_manifest(data), callbacks=[told])
    fitted = dmoe.Trainer(config, load_manifest(data))
    alpha, world = config.correlation.alpha, distributed.world_size()

    def loss_of(losses) -> float:
        return float(distributed.all_reduce_sum(losses.bce.double()) / world + alpha * losses.correlation)

    one = [loss_of(stepped.step(batch)) for batch in batches_of(stepped, STEPS)]
    other = [loss_of(losses) for losses in fitted.fit(batches_of(fitted, STEPS))]
    assert told.steps == list(range(1, STEPS + 1))
    figures = stepped.evaluate(batches_of(stepped, 3))
    assert told.figures == [figures]
    # Both ways can be mixed: the pipeline gives the model back as it was.
    fitted.step(next(iter(batches_of(fitted, 1))))
    weights = {name: np.abs(value - whole_tables(session)[name]).max() for name, value in whole_tables(stepped.session).items()}
    return expected, one, other, weights


@pytest.mark.parametrize("world_size", [1, 2])
def test_steps_equal_those_of_the_command_line(ranks, data_set, world_size):
    for expected, one, other, weights in ranks(world_size).run(by_loop, data_set):
        assert one == pytest.approx(expected, rel=1e-6)
        assert other == pytest.approx(expected, rel=1e-6)
        assert max(weights.values()) < 1e-6


def kept_and_loaded(data: str, folder: str) -> tuple[list[float], list[float]]:
    config, manifest = small_config(data), load_manifest(data)
    whole = dmoe.Trainer(config, manifest)
    rows = config.train.batch_size * 3
    for batch in batches_of(whole, 3):
        whole.step(batch)
    whole.save(folder)
    expected = [float(whole.step(batch).bce) for batch in batches_of(whole, 3, rows)]
    again = dmoe.Trainer(config, manifest)
    again.load(folder)
    assert again.progress.step == 3
    return expected, [float(again.step(batch).bce) for batch in batches_of(again, 3, rows)]


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_kept_trainer_continues_where_it_was(ranks, data_set, tmp_path, world_size):
    for expected, found in ranks(world_size).run(kept_and_loaded, data_set, str(tmp_path / "kept")):
        assert found == expected


def sharded_and_whole(layout: str) -> float:
    features = {"user": 50, "tags": dmoe.Feature(20, pooling="mean", mean_ids=2.0)}
    model = dmoe.DMoE(features, dense=["price"], experts=["crossnet", "mlp"], dim=10, seed=3, embedding={"layout": layout})
    trainer = dmoe.Trainer(model)
    from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

    ids = KeyedJaggedTensor.from_lengths_sync(["user", "tags"], torch.tensor([1, 2, 3, 4, 5, 6]), torch.tensor([1, 1, 1, 2, 0, 1]))
    batch = dmoe.Batch(torch.randn(3, 1, generator=torch.Generator().manual_seed(0)), ids, torch.tensor([0.0, 1.0, 0.0]))
    trainer.session.sharded.eval()
    with torch.no_grad():
        _, (_, outputs, *_) = trainer.session.sharded(batch)
        expected = model.eval()(batch.dense_BD, ids)
    return float((outputs.logit_B - expected.logit_B).abs().max())


@pytest.mark.parametrize("layout", ["wide", "separate"])
@pytest.mark.parametrize("world_size", [1, 2])
def test_a_trainer_starts_from_the_weights_of_its_model(ranks, world_size, layout):
    assert max(ranks(world_size).run(sharded_and_whole, layout)) < 1e-6


def in_plain_ddp(seed: int) -> tuple[list[float], list[float]]:
    """CorrelationLoss in another project's DistributedDataParallel: gradients of all ranks' rows, against one process with all rows."""
    rank, world = distributed.rank(), distributed.world_size()
    generator = torch.Generator().manual_seed(seed)
    x_BI = torch.randn(12 * world, 5, generator=generator)
    net = torch.nn.Linear(5, 3 * 4)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    mine = x_BI[rank * 12 : rank * 12 + 12]
    wrapped = torch.nn.parallel.DistributedDataParallel(net) if world > 1 else net
    dmoe.CorrelationLoss()(wrapped(mine).unflatten(1, (3, 4))).loss.backward()
    found = net.weight.grad.flatten().tolist()
    weight = net.weight.detach().double().requires_grad_()
    hidden_BP = x_BI.double() @ weight.T + net.bias.detach().double()
    r_PP = torch.corrcoef(hidden_BP.T)
    pairs = [(p, q) for p in range(3) for q in range(p + 1, 3)]
    torch.stack([r_PP[4 * p : 4 * p + 4, 4 * q : 4 * q + 4].abs().mean() for p, q in pairs]).mean().backward()
    return found, weight.grad.flatten().tolist()


@pytest.mark.parametrize("world_size", [1, 2])
def test_the_correlation_loss_works_in_plain_ddp(ranks, world_size):
    for found, expected in ranks(world_size).run(in_plain_ddp, 4):
        assert found == pytest.approx(expected, abs=1e-5)
