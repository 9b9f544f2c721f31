"""Correlation within classes, and the test rows' predictions, over ranks against one process in numpy.

Shapes: N rows of all ranks, M experts, D dims.
"""

import numpy as np
import pytest
import torch

from dmoe import distributed
from dmoe.model.losses.correlation import EPS, CorrelationLoss
from dmoe.testing.small_run import open_small, small_config
from dmoe.train.run.predictions import Predictions
from tests.distributed.test_correlation import CONSTANT, SHARES, numeric_gradient, outputs

LABELS = np.array([1, 0, 0, 1, 0, 1, 0, 0, 1], np.float32)


def reference(x_NMD: np.ndarray, norm: str) -> float:
    """Columns centred within each label, then the loss from its definition."""
    centred = x_NMD.copy()
    for label in (0, 1):
        centred[label == LABELS] -= centred[label == LABELS].mean(0)
    sums = (centred**2).sum(0)
    alive = sums > 1e-20
    z = centred / np.sqrt(np.where(alive, sums + EPS * sums[alive].mean(), np.inf))
    total = 0.0
    for p in range(3):
        for q in range(p + 1, 3):
            r = z[:, p].T @ z[:, q]
            total += np.abs(r).mean() if norm == "l1" else max((r**2).mean() - 1 / (len(x_NMD) - 2), 0)
    return total / 3


def on_rank(norm: str, reduce: str) -> tuple[float, np.ndarray]:
    rank, world_size = distributed.rank(), distributed.world_size()
    shares, x = SHARES[world_size], outputs()
    start, rows, padded = sum(shares[:rank]), shares[rank], max(shares)
    mine, label = torch.full((padded, 3, 4), 99.0, dtype=torch.float64), torch.zeros(padded)
    mine[:rows], label[:rows] = torch.from_numpy(x[start : start + rows]), torch.from_numpy(LABELS[start : start + rows])
    mine.requires_grad_()
    result = CorrelationLoss(norm=norm, reduce=reduce)(mine, (torch.arange(padded) < rows).double(), label)
    result.loss.backward()
    return float(result.loss), (mine.grad[:rows] / world_size).numpy()


@pytest.mark.parametrize("norm", ["l1", "l2_debiased"])
@pytest.mark.parametrize("world_size", [1, 3])
@pytest.mark.parametrize("reduce", ["moments", "gather"])
def test_within_classes_equals_float64_reference(ranks, norm, world_size, reduce):
    results = ranks(world_size).run(on_rank, norm, reduce)
    for loss, _ in results:
        assert loss == pytest.approx(reference(outputs(), norm), rel=1e-9)
    gradient = numeric_gradient(lambda x: reference(x, norm), outputs(), CONSTANT)
    np.testing.assert_allclose(np.concatenate([g for _, g in results]), gradient, rtol=1e-5, atol=1e-7)


def predictions_on_rank(data: str) -> tuple[dict[str, np.ndarray], str]:
    """The test rows' predictions in batches that no number of ranks here divides."""
    session = open_small(small_config(data, "train.eval_batch_size=101"))
    reader = session.reader("test")
    kept = Predictions(reader.order, 0)
    batches = reader.batches(101, distributed.rank(), distributed.world_size())
    session.sharded.eval()
    with torch.no_grad():
        for _ in range(reader.steps(101)):
            _, outputs_, label_B, weight_B, _ = session.pipeline.progress(batches)
            kept.add(outputs_.logit_B, label_B, weight_B, expert_logit=outputs_.expert_logit_BM)
    return kept.gather(), kept.order


def test_predictions_are_in_one_order_for_any_number_of_ranks(ranks, data_set):
    (alone,) = ranks(1).run(predictions_on_rank, data_set)
    for world_size in (2, 3):
        found, order = ranks(world_size).run(predictions_on_rank, data_set)[0]
        assert order == alone[1]
        assert found["expert_logit"].shape == (len(found["label"]), 3)
        np.testing.assert_array_equal(found["label"], alone[0]["label"])
        for name in ("logit", "expert_logit"):
            np.testing.assert_allclose(found[name], alone[0][name], atol=1e-5)
