"""Losses on the experts' own logits over ranks, and the mixture of logits, against one process in numpy's float64.

Shapes: N rows of all ranks, M experts, D dims.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from dmoe import distributed
from dmoe.config.config import Config
from dmoe.model.build import distillation_of, expert_terms
from dmoe.model.losses.correlation import CorrelationLoss
from dmoe.model.losses.objective import Objective
from dmoe.model.mixture import Outputs
from tests.distributed.test_correlation import SHARES, numeric_gradient

ROWS, EXPERTS, DIMS, SELECTORS = 9, 3, 4, 2
LABELS = np.array([1, 0, 0, 1, 0, 1, 0, 0, 1], np.float64)
WEIGHTS = np.array([1, 2, 0.5, 1, 1, 3, 1, 0.25, 1], np.float64)


def values() -> dict[str, np.ndarray]:
    """The experts' logits [N, M], the mixture's [N], the gate [N, M], the hidden states [N, M, D] and the gate's selectors [N, L, M]."""
    rng = np.random.default_rng(5)
    gate = rng.random((ROWS, EXPERTS)) + 0.1
    return {
        "expert": rng.normal(size=(ROWS, EXPERTS)),
        "mixture": rng.normal(size=ROWS),
        "gate": gate / gate.sum(1, keepdims=True),
        "hidden": rng.normal(size=(ROWS, EXPERTS, DIMS)),
        "selector": rng.dirichlet(np.full(EXPERTS + 1, 5.0), (ROWS, SELECTORS))[:, :, :EXPERTS],
        "teacher": 2 * rng.normal(size=ROWS),
    }


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def mean(x_N: np.ndarray) -> float:
    return float((x_N * WEIGHTS).sum() / WEIGHTS.sum())


def cross_entropy(logit_N: np.ndarray) -> float:
    p = sigmoid(logit_N)
    return mean(-(LABELS * np.log(p) + (1 - LABELS) * np.log(1 - p)))


def supervision(x: dict[str, np.ndarray], _: dict[str, np.ndarray]) -> float:
    return 0.7 * sum(cross_entropy(x["expert"][:, m]) for m in range(EXPERTS)) / EXPERTS


def agreement(x: dict[str, np.ndarray], still: dict[str, np.ndarray], ensemble: bool = True, mutual: bool = True) -> float:
    """KDEF's loss, expert by expert; the teachers' values and the confidences are those of `still`."""
    p, teacher, mixed = sigmoid(x["expert"]), sigmoid(still["expert"]), sigmoid(still["mixture"])
    sure = [mean(1 - np.abs(LABELS - teacher[:, m])) for m in range(EXPERTS)]
    loss = sum(cross_entropy(x["expert"][:, m]) for m in range(EXPERTS)) / EXPERTS
    for m in range(EXPERTS):
        if ensemble:
            loss += np.exp(-sure[m]) / sum(np.exp(-s) for s in sure) * mean((p[:, m] - mixed) ** 2)
        others = [n for n in range(EXPERTS) if n != m]
        total = sum(np.exp(sure[n] - sure[m]) for n in others)
        for n in others if mutual else ():
            loss += np.exp(sure[n] - sure[m]) / total * mean((p[:, m] - teacher[:, n]) ** 2) / EXPERTS
    return loss


def balance(x: dict[str, np.ndarray], still: dict[str, np.ndarray]) -> float:
    largest = still["gate"].argmax(1)
    return 0.3 * EXPERTS * sum(mean((largest == m).astype(float)) * mean(x["gate"][:, m]) for m in range(EXPERTS))


def variation(x: dict[str, np.ndarray], _: dict[str, np.ndarray]) -> float:
    """Of the means over rows, whose own mean is 1 / M where gates sum to 1."""
    return 0.3 * sum((EXPERTS * mean(x["gate"][:, m]) - 1) ** 2 for m in range(EXPERTS)) / EXPERTS


def orthogonality(x: dict[str, np.ndarray], _: dict[str, np.ndarray]) -> float:
    h, total = x["hidden"], 0.0
    for j in range(EXPERTS):
        for k in range(j):
            dot = (h[:, j] * h[:, k]).sum(1)
            total += mean(dot**2 / (h[:, j] ** 2).sum(1) / (h[:, k] ** 2).sum(1))
    return 0.4 * total / 3


def selectors(x: dict[str, np.ndarray], _: dict[str, np.ndarray], entropy: float = 0.2, reach: float = 0.6) -> float:
    """DSelect-k's penalties, selector by selector."""
    total = 0.0
    for number in range(SELECTORS):
        r = x["selector"][:, number]
        total += entropy * sum(mean(-r[:, m] * np.log(r[:, m] + 1e-6)) for m in range(EXPERTS))
        total += reach * mean(1 / (r[:, 0] + r[:, 1] + r[:, 2]) - 1)
    return total


def distillation(x: dict[str, np.ndarray], still: dict[str, np.ndarray]) -> float:
    """0.6 T^2 KL(q || p) at T = 2; the teacher gets no gradient."""
    q, p = sigmoid(still["teacher"] / 2), sigmoid(x["mixture"] / 2)
    return 0.6 * 4 * mean(q * np.log(q / p) + (1 - q) * np.log((1 - q) / (1 - p)))


SPARSE = {"model": {"gate": "dselect_k"}, "specialisation": {"gate_entropy_weight": 0.2, "gate_reach_weight": 0.6}}
FOUR = {"model": {"gate": "dselect_k", "experts": ["mlp"] * 4}, "specialisation": {"gate_entropy_weight": 0.2}}
Loss = Callable[[dict[str, np.ndarray], dict[str, np.ndarray]], float]
"""Of the values, and of the values as they are where the loss takes no gradient of them."""
CASES: dict[str, tuple[dict[str, Any], Loss]] = {
    "kdef": ({"supervision": {"agreement": "kdef"}}, agreement),
    "mutual": ({"supervision": {"agreement": "mutual"}}, partial(agreement, ensemble=False)),
    "ensemble": ({"supervision": {"agreement": "ensemble"}}, partial(agreement, mutual=False)),
    "load": ({"specialisation": {"balance_weight": 0.3}}, balance),
    "cv2": ({"specialisation": {"balance_weight": 0.3, "balance": "cv2"}}, variation),
    "orthogonality": ({"specialisation": {"orthogonality_weight": 0.4}}, orthogonality),
    "selectors": (SPARSE, selectors),
    "selectors of a power of two": (FOUR, partial(selectors, reach=0.0)),
    "supervision": ({"supervision": {"expert_weight": 0.7}}, supervision),
    "distillation": ({"distill": {"teachers": ["run"], "weight": 0.6, "temperature": 2.0}}, distillation),
}


def on_rank(settings: dict[str, Any]) -> tuple[float, dict[str, np.ndarray]]:
    """The auxiliary loss, and what this rank's rows get after averaging over ranks."""
    rank, world_size = distributed.rank(), distributed.world_size()
    shares = SHARES[world_size]
    start, rows, padded = sum(shares[:rank]), shares[rank], max(shares)

    def mine(x: np.ndarray, fill: float) -> torch.Tensor:
        out = torch.full((padded, *x.shape[1:]), fill, dtype=torch.float64)
        out[:rows] = torch.from_numpy(x[start : start + rows])
        return out

    x = {name: mine(one, 99.0).requires_grad_() for name, one in values().items()}
    config = Config.model_validate(settings)
    terms, learns = expert_terms(config), distillation_of(config)
    objective = Objective(CorrelationLoss(), 0.0, "hidden", 0.0, terms=terms, bce_weight=0.0, distillation=learns)
    none = torch.zeros(padded, 0, dtype=torch.float64)
    outputs = Outputs(x["mixture"], x["hidden"], x["gate"].unsqueeze(2), x["expert"], none, x["selector"])
    loss, losses = objective(outputs, [], mine(LABELS, 0), mine(WEIGHTS, 0), x["teacher"])
    loss.backward()
    gradients = {}
    for name, one in x.items():
        grad = torch.zeros_like(one) if one.grad is None else one.grad
        assert not grad[rows:].abs().any(), "padding has a gradient"
        gradients[name] = (grad[:rows] / world_size).numpy()
    return float(distributed.all_reduce_sum(losses.auxiliary.clone()) / world_size), gradients


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("case", CASES)
def test_value_and_gradient_equal_float64_reference(ranks, case, world_size):
    settings, loss = CASES[case]
    results = ranks(world_size).run(on_rank, settings)
    for told, _ in results:
        assert told == pytest.approx(loss(values(), values()), rel=1e-12)
    for name, x in values().items():
        expected = numeric_gradient(lambda moved, name=name: loss(values() | {name: moved}, values()), x)
        found = np.concatenate([gradients[name] for _, gradients in results])
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9, err_msg=name)
