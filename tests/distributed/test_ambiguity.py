"""Ambiguity over ranks, of which one may have no row, against numpy over all rows.

Shapes: N rows of all ranks, M experts.
"""

import numpy as np
import pytest
import torch

from dmoe import distributed
from dmoe.metrics.ambiguity import Ambiguity, AmbiguityReport
from tests.distributed.test_correlation import SHARES
from tests.distributed.test_expert_losses import LABELS, WEIGHTS, cross_entropy, mean, sigmoid, values


def on_rank() -> AmbiguityReport:
    shares, x = SHARES[distributed.world_size()], values()
    start = sum(shares[: distributed.rank()])
    metric = Ambiguity(experts=3)
    for row in range(start, start + shares[distributed.rank()]):
        metric.update(*(torch.from_numpy(one[row : row + 1]) for one in (x["mixture"], x["expert"], x["gate"], LABELS, WEIGHTS)))
    return metric.compute()


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_equals_numpy_over_uneven_ranks(ranks, world_size):
    x = values()
    alone = [cross_entropy(x["expert"][:, m]) for m in range(3)]
    p = sigmoid(x["expert"])
    losses = -np.where(LABELS[:, None] == 1, np.log(p), np.log(1 - p))
    credit = x["gate"] * np.exp(-losses)
    credit /= credit.sum(1, keepdims=True)
    for report in ranks(world_size).run(on_rank):
        assert report.responsibility == pytest.approx([mean(credit[:, m]) for m in range(3)], rel=1e-12)
        assert report.expert_logloss == pytest.approx(alone, rel=1e-12)
        assert report.value == pytest.approx(mean((x["gate"] * losses).sum(1)) - cross_entropy(x["mixture"]), rel=1e-12)
        assert report.even == pytest.approx(np.mean(alone) - cross_entropy(x["mixture"]), rel=1e-12)


@pytest.mark.parametrize("of", ["logits", "probabilities"])
def test_is_not_negative_where_logits_or_probabilities_are_mixed(of):
    rng = np.random.default_rng(0)
    for _ in range(20):
        z, gate = rng.normal(size=(50, 4)) * 3, rng.dirichlet(np.ones(4), 50)
        mixed = (gate * z).sum(1) if of == "logits" else (gate * sigmoid(z)).sum(1)
        logit = mixed if of == "logits" else np.log(mixed / (1 - mixed))
        metric = Ambiguity(experts=4)
        metric.update(*(torch.from_numpy(one) for one in (logit, z, gate, (rng.random(50) < 0.3).astype(float))))
        assert metric.compute().value >= 0
