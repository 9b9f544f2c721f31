"""Batch norm of the experts' outputs over ranks, against one process in numpy's float64.

Shapes: N rows of all ranks, M experts, D dims, P = M * D columns.
"""

import numpy as np
import pytest
import torch

from dmoe import distributed
from dmoe.model.batch_norm import NormalizedExperts
from dmoe.testing.small_run import open_small, small_config, train_steps
from tests.distributed.test_correlation import SHARES

ROWS, EXPERTS, DIMS, BATCHES = 9, 3, 4, 12


def batches() -> np.ndarray:
    """[batches, N, P], far from 0: one-pass variances would be lost there."""
    rng = np.random.default_rng(2)
    return rng.normal(size=(BATCHES, ROWS, EXPERTS * DIMS)) * rng.uniform(0.1, 3, EXPERTS * DIMS) + 1e4 * rng.normal(size=EXPERTS * DIMS)


def parameters() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    return {"weight": rng.normal(size=EXPERTS * DIMS), "bias": rng.normal(size=EXPERTS * DIMS)}


def loss_weights() -> np.ndarray:
    return np.random.default_rng(4).normal(size=(ROWS, EXPERTS * DIMS))


def normalised(x_NP: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    z = (x_NP - x_NP.mean(0)) / np.sqrt(x_NP.var(0) + 1e-5) * weight + bias
    return z / (1 + np.exp(-z))


def loss(x_NP: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> float:
    """A mean over the global rows, as the training loss is one."""
    return float((loss_weights() * normalised(x_NP, weight, bias)).sum(1).mean())


def gradients() -> dict[str, np.ndarray]:
    there, found = {"x": batches()[0], **parameters()}, {}
    for name, value in there.items():
        found[name] = np.zeros_like(value)
        for index in np.ndindex(*value.shape):
            moved = []
            for step in (1e-5, -1e-5):
                other = value.copy()
                other[index] += step
                now = {**there, name: other}
                moved.append(loss(now["x"], now["weight"], now["bias"]))
            found[name][index] = (moved[0] - moved[1]) / 2e-5
    return found


def on_rank() -> dict[str, np.ndarray]:
    """This rank's rows of the output and of the gradient, the parameters' gradients averaged over ranks, and the running moments."""
    rank, world_size = distributed.rank(), distributed.world_size()
    shares = SHARES[world_size]
    start, rows, padded = sum(shares[:rank]), shares[rank], max(shares)
    norm = NormalizedExperts(EXPERTS, DIMS, "silu").double()
    norm.load_state_dict({name: torch.from_numpy(value) for name, value in parameters().items()}, strict=False)
    mask = torch.arange(padded) < rows

    def mine(x_NP: np.ndarray) -> torch.Tensor:
        out = torch.full((padded, x_NP.shape[1]), float("inf"), dtype=torch.float64)
        out[:rows] = torch.from_numpy(x_NP[start : start + rows])
        return out.requires_grad_()

    told: dict[str, np.ndarray] = {}
    for number, x_NP in enumerate(batches()):
        x_BP = mine(x_NP)
        out_BMD = norm(x_BP.view(padded, EXPERTS, DIMS), mask.double() * 0.25)
        if number == 0:
            share = (torch.from_numpy(loss_weights()[start : start + rows]) * out_BMD.flatten(1)[:rows]).sum() / ROWS
            (share * world_size).backward()
            told["out"], told["x"] = out_BMD.detach().flatten(1)[:rows].numpy(), x_BP.grad[:rows].numpy() / world_size
            assert not x_BP.grad[rows:].any(), "padding has a gradient"
            for name, parameter in norm.named_parameters():
                told[name] = (distributed.all_reduce_sum(parameter.grad.clone()) / world_size).numpy()
        elif number == 1:
            told |= {f"{name} of two": value.clone().numpy() for name, value in norm.named_buffers()}
    return told | {name: value.numpy() for name, value in norm.named_buffers()}


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_outputs_gradients_and_moments_equal_float64_reference(ranks, world_size):
    results = ranks(world_size).run(on_rank)
    expected, x = gradients(), batches()
    np.testing.assert_allclose(np.concatenate([one["out"] for one in results]), normalised(x[0], **parameters()), rtol=1e-8)
    np.testing.assert_allclose(np.concatenate([one["x"] for one in results]), expected["x"], rtol=1e-4, atol=1e-7)
    running = [x[0].mean(0), x[0].var(0, ddof=1)]
    for number in range(1, BATCHES):
        share = max(1 / (number + 1), 0.1)
        now = (x[number].mean(0), x[number].var(0, ddof=1))
        running = [old + share * (new - old) for old, new in zip(running, now, strict=True)]
    for one in results:
        for name in ("weight", "bias"):
            np.testing.assert_allclose(one[name], expected[name], rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(one["running_mean of two"], x[:2].mean((0, 1)), rtol=1e-12)
        np.testing.assert_allclose(one["running_mean"], running[0], rtol=1e-12)
        np.testing.assert_allclose(one["running_var"], running[1], rtol=1e-8)


def of_evaluation(data: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of a trained model in evaluation: a rank's hidden states of two batch sizes, and the moments, which evaluation leaves as they are."""
    session = open_small(small_config(data, "model.expert_norm=batch"))
    train_steps(session, 3)
    session.pipeline.detach()
    session.sharded.eval()
    before = session.dense.norm.running_mean.clone()
    found = []
    with torch.no_grad():
        for size in (30, 90):
            batch = next(iter(session.reader("test", in_order=True).batches(size, 0, 1)))
            found.append(session.sharded(batch)[1][1].hidden_BMD[:30].numpy())
    assert torch.equal(before, session.dense.norm.running_mean)
    return found[0], found[1], before.numpy()


def test_evaluation_reads_running_moments_whatever_the_batch(ranks, data_set):
    for small, large, moments in ranks(2).run(of_evaluation, data_set):
        np.testing.assert_allclose(small, large, rtol=1e-5, atol=1e-6)
        assert moments.any()
