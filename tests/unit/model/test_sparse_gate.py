"""DSelect-k's gate against its definition, and a scorer's mixture that spares each expert the rows that did not choose it.

Shapes: B rows, M experts, L selectors, N inputs of the gate.
"""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from dmoe.config.model_sections import ModelConfig
from dmoe.model.assemble import assemble
from dmoe.model.gate import DSelectKGate, smooth_step
from dmoe.model.mixture import ExpertMixture

FIELDS, DIM = 3, 4


def test_smooth_step_is_its_definition():
    x = np.linspace(-1.5, 1.5, 61)
    gamma = 1.4
    cubic = -2 / gamma**3 * x**3 + 3 / (2 * gamma) * x + 0.5
    expected = np.where(x <= -gamma / 2, 0, np.where(x >= gamma / 2, 1, cubic))
    np.testing.assert_allclose(smooth_step(torch.from_numpy(x), gamma).numpy(), expected, atol=1e-15)


def by_hand(gate: DSelectKGate, x_BN: np.ndarray, experts: int) -> tuple[np.ndarray, np.ndarray]:
    """The gate [B, M] and its selectors [B, L, M], number by number."""
    weight = {name: value.detach().numpy() for name, value in gate.state_dict().items()}
    bits = 0
    while 2**bits < experts:
        bits += 1
    selector = np.ones((len(x_BN), gate.selectors, experts))
    out = np.zeros((len(x_BN), experts))
    for row, x in enumerate(x_BN):
        a = weight["weights.weight"] @ x + weight["weights.bias"]
        share = np.exp(a) / np.exp(a).sum()
        z = (weight["codes.weight"] @ x + weight["codes.bias"]).reshape(gate.selectors, bits) if bits else None
        for which, expert in itertools.product(range(gate.selectors), range(experts)):
            for bit in range(bits):
                t = z[which, bit] / gate.gamma
                step = 0.0 if t <= -0.5 else 1.0 if t >= 0.5 else -2 * t**3 + 1.5 * t + 0.5
                selector[row, which, expert] *= step if (expert // 2**bit) % 2 else 1 - step
            out[row, expert] += share[which] * selector[row, which, expert]
    return out, selector


@pytest.mark.parametrize("experts", [1, 2, 3, 4, 5])
def test_gate_is_its_definition(experts):
    torch.manual_seed(experts)
    sets = [0, 0, 1, 2, 2][:experts]
    gate = DSelectKGate([6] * experts, sets, selectors=2, gamma=0.8).double()
    of_set = [torch.randn(7, 6, dtype=torch.float64) for _ in range(3)]
    found = gate([of_set[index] for index in sets])
    expected, selector = by_hand(gate, np.concatenate([of_set[i].numpy() for i in sorted(set(sets))], 1), experts)
    np.testing.assert_allclose(found.gate_BM1[:, :, 0].detach().numpy(), expected, atol=1e-14)
    np.testing.assert_allclose(found.selector_BLM.detach().numpy(), selector, atol=1e-14)
    if experts in (1, 2, 4):
        np.testing.assert_allclose(expected.sum(1), 1, atol=1e-14)


class Counted(nn.Module):
    """An expert that counts its rows."""

    def __init__(self, expert: nn.Module) -> None:
        super().__init__()
        self.expert, self.rows = expert, 0

    def forward(self, x_BFK: torch.Tensor) -> torch.Tensor:
        self.rows += len(x_BFK)
        return self.expert(x_BFK)


def sparse_mixture(experts: int, selectors: int, gamma: float, **switches: str) -> ExpertMixture:
    torch.manual_seed(3)
    settings = ModelConfig.model_validate(
        {"experts": ["mlp"] * experts, "gate": "dselect_k", "gate_experts": selectors, "gate_gamma": gamma, "expert_dim": 6, **switches}
    )
    specs = [("mlp", {"hidden": [5]})] * experts
    return assemble(settings, FIELDS, 0, specs, [DIM] * experts, list(range(experts))).double().eval()


@pytest.mark.parametrize("switches", [{}, {"mixture": "logits"}, {"mixture": "logits", "expert_tower": "own"}], ids=str)
@pytest.mark.parametrize("gamma", [1e-6, 1.0])
@pytest.mark.parametrize("experts", [3, 4])
def test_rows_that_skip_experts_score_as_those_that_do_not(experts, gamma, switches):
    mixture = sparse_mixture(experts, 2, gamma, **switches)
    mixture.experts = nn.ModuleList(Counted(expert) for expert in mixture.experts)
    sets = [torch.randn(40, FIELDS, DIM, dtype=torch.float64) for _ in range(experts)]
    dense = torch.zeros(40, 0, dtype=torch.float64)
    with torch.no_grad():
        outputs = mixture(dense, sets)
        for expert in mixture.experts:
            expert.rows = 0
        logit_B = mixture.logits(dense, sets)
    torch.testing.assert_close(logit_B, outputs.logit_B, rtol=1e-12, atol=1e-12)
    active_M = (outputs.gate_BMG[:, :, 0] > 0).sum(0).tolist()
    assert [expert.rows for expert in mixture.experts] == active_M
    if gamma == 1e-6:
        assert 0 < sum(active_M) <= 2 * 40


def test_a_row_that_chose_no_expert_gets_the_towers_logit_of_nothing():
    """Of three experts the fourth code is nobody's."""
    mixture = sparse_mixture(3, 1, 1.0)
    with torch.no_grad():
        mixture.gate.codes.weight.zero_()
        mixture.gate.codes.bias.fill_(9.0)
    sets = [torch.randn(5, FIELDS, DIM, dtype=torch.float64) for _ in range(3)]
    dense = torch.zeros(5, 0, dtype=torch.float64)
    with torch.no_grad():
        expected = mixture.tower(torch.zeros(5, 6, dtype=torch.float64))
        torch.testing.assert_close(mixture.logits(dense, sets), expected)
        torch.testing.assert_close(mixture(dense, sets).logit_B, expected)


def test_penalties_make_a_gate_sparse_and_keep_it_on_experts():
    """Trained on the penalties alone each selector ends at one expert of three, though both began near the code that is nobody's."""
    from dmoe.model.losses.expert_losses import RowMean, SelectorPenalty
    from dmoe.model.mixture import Outputs

    torch.manual_seed(0)
    gate = DSelectKGate([4] * 3, [0] * 3, selectors=2).double()
    with torch.no_grad():
        gate.codes.bias.copy_(torch.tensor([0.35, 0.2, 0.3, 0.4]))
    x_BN = torch.randn(64, 4, dtype=torch.float64) * 0.05
    penalty, step = SelectorPenalty(0.3, 1.0), torch.optim.Adam(gate.parameters(), lr=0.02)
    none, label = torch.zeros(0), torch.zeros(64)
    mean = RowMean(torch.ones(64, dtype=torch.float64), torch.tensor(1 / 64, dtype=torch.float64))
    for _ in range(500):
        step.zero_grad()
        selector_BLM = gate([x_BN] * 3).selector_BLM
        penalty(Outputs(none, none, none, none, none, selector_BLM), label, mean).backward()
        step.step()
    selector_BLM = gate([x_BN] * 3).selector_BLM.detach()
    torch.testing.assert_close(selector_BLM.max(2).values, torch.ones(64, 2, dtype=torch.float64), rtol=0, atol=0.02)
