"""Loss and gradients of the correlation loss over ranks, against a single process in numpy's float64.

Shapes: N rows of all ranks, M experts, D dims.
"""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from dmoe import distributed
from dmoe.model.losses.correlation import EPS, CorrelationLoss

SWITCHES = [
    ("pearson", "l1", "full"),
    ("pearson", "l2", "full"),
    ("pearson", "l2_debiased", "full"),
    ("pearson", "l1", "diagonal"),
    ("covariance", "l1", "full"),
    ("covariance", "l2", "diagonal"),
]
SHARES = {1: [9], 2: [7, 2], 3: [4, 0, 5]}
"""Rows of each rank: uneven, and none at all."""
CONSTANT = (2, 1)
"""The column of `outputs` without variance."""


def outputs(rows: int = 9) -> np.ndarray:
    x = np.random.default_rng(3).normal(size=(rows, 3, 4)) + 5
    x[:, 1] += x[:, 0] * 0.7
    x[:, 2, 1] = 2.5
    return x


def reference(x_NMD: np.ndarray, estimator: str, norm: str, scope: str) -> float:
    """The definition of ALGORITHM: section 2, pair by pair, entry by entry."""
    rows, experts, _ = x_NMD.shape
    centred = x_NMD - x_NMD.mean(0)
    sums = (centred**2).sum(0)
    alive = sums > 1e-20
    scale = np.sqrt(np.where(alive, sums + EPS * sums[alive].mean(), np.inf))
    z = centred / scale if estimator == "pearson" else centred
    total = 0.0
    for p in range(experts):
        for q in range(p + 1, experts):
            r = z[:, p].T @ z[:, q]
            entries = np.diagonal(r) if scope == "diagonal" else r
            value = np.abs(entries).mean() if norm == "l1" else (entries**2).mean()
            total += max(value - 1 / (rows - 1), 0) if norm == "l2_debiased" else value
    return total * 2 / (experts * (experts - 1))


def numeric_gradient(loss: Callable[[np.ndarray], float], x: np.ndarray, constant: tuple[int, ...] | None = None) -> np.ndarray:
    """By differences; `constant` is a column without variance, which is defined to have no gradient."""
    gradient = np.zeros_like(x)
    for index in np.ndindex(*x.shape):
        if index[1:] == constant:
            continue
        step = np.zeros_like(x)
        step[index] = 1e-6
        gradient[index] = (loss(x + step) - loss(x - step)) / 2e-6
    return gradient


def on_rank(switches: tuple[str, str, str], reduce: str) -> tuple[float, np.ndarray, int]:
    """The loss, what this rank's rows get after averaging over ranks, and the number of dead columns."""
    rank, world_size = distributed.rank(), distributed.world_size()
    shares, x = SHARES[world_size], outputs()
    start, rows, padded = sum(shares[:rank]), shares[rank], max(shares)
    mine = torch.full((padded, 3, 4), 99.0, dtype=torch.float64)
    mine[:rows] = torch.from_numpy(x[start : start + rows])
    mine.requires_grad_()
    mask = (torch.arange(padded) < rows).double()
    result = CorrelationLoss(*switches, reduce=reduce)(mine, mask)
    result.loss.backward()
    assert mine.grad is not None
    assert not mine.grad[rows:].abs().any(), "padding has a gradient"
    # A parameter that all rows share gets the mean over ranks from DistributedDataParallel: so must a row.
    return float(result.loss), (mine.grad[:rows] / world_size).numpy(), int(result.dead)


@pytest.mark.parametrize("switches", SWITCHES, ids="-".join)
@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("reduce", ["moments", "gather"])
def test_loss_and_gradient_equal_float64_reference(ranks, switches, world_size, reduce):
    results = ranks(world_size).run(on_rank, switches, reduce)
    x = outputs()
    expected = reference(x, *switches)
    for loss, _, dead in results:
        assert loss == pytest.approx(expected, rel=1e-9)
        assert dead == 1
    gradient = np.concatenate([grad for _, grad, _ in results])
    np.testing.assert_allclose(gradient, numeric_gradient(lambda x: reference(x, *switches), x, CONSTANT), rtol=1e-5, atol=1e-7)


def both_on_rank() -> tuple[float, np.ndarray]:
    torch.manual_seed(distributed.rank())
    x = torch.randn(64, 4, 8) * 0.01 + 3
    values, grads = [], []
    for reduce in ("moments", "gather"):
        mine = x.clone().requires_grad_()
        loss = CorrelationLoss(reduce=reduce)(mine, torch.ones(64)).loss
        loss.backward()
        values.append(float(loss))
        grads.append(mine.grad)
    return abs(values[0] - values[1]) / values[1], float((grads[0] - grads[1]).norm() / grads[1].norm())


def test_the_two_ways_agree_in_float32_far_from_zero_mean(ranks):
    for loss, grad in ranks(2).run(both_on_rank):
        assert loss < 1e-5
        assert grad < 1e-3
