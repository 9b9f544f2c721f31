"""Every way to lower CEC without helping, built of the experts' outputs, and the sentence that gives it away.

Shapes: B rows, M experts, D dims.
"""

import pytest
import torch

from dmoe.metrics.evaluation import Evaluation
from dmoe.model.gate import MeanGate
from dmoe.model.mixture import ExpertMixture, Outputs
from dmoe.report.indicators import warnings

ROWS, EXPERTS, WIDTH = 6000, 3, 4


def sound(experts: int = EXPERTS) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Experts that each hold the label's signal with noise of their own, and share some."""
    torch.manual_seed(0)
    label_B = (torch.rand(ROWS) < 0.3).float()
    shared_B = torch.randn(ROWS)
    hidden_BMD = torch.randn(ROWS, experts, WIDTH) + 0.8 * shared_B[:, None, None] + 0.7 * label_B[:, None, None]
    return hidden_BMD, torch.full((ROWS, experts, 1), 1 / experts), label_B


def evaluated(hidden_BMD: torch.Tensor, gate_BM1: torch.Tensor, label_B: torch.Tensor) -> dict:
    """The figures of a model whose tower sums the dims."""
    tower = torch.nn.Sequential(torch.nn.Flatten(-1))
    mixture = ExpertMixture([torch.nn.Identity()], [torch.nn.Identity()], MeanGate(), tower, [], [0])
    mixture.tower = _Sum()
    left_out_BM = mixture._left_out(hidden_BMD, gate_BM1, hidden_BMD.sum(2))
    outputs = Outputs((gate_BM1 * hidden_BMD).sum((1, 2)) - 2, hidden_BMD, gate_BM1, hidden_BMD.sum(2) - 2, left_out_BM - 2)
    evaluation = Evaluation("exact", 1 << 16, torch.device("cpu"))
    evaluation.update(outputs, label_B, torch.ones(ROWS))
    return evaluation.compute()


class _Sum(torch.nn.Module):
    def forward(self, x_D: torch.Tensor) -> torch.Tensor:
        return x_D.sum(-1)


@pytest.fixture(scope="module")
def honest() -> dict:
    return evaluated(*sound())


def test_sound_experts_raise_no_word(honest):
    assert warnings(honest) == []
    assert honest["cec_within_class"] < honest["cec"] < honest["cec_matrix"][0][0]
    assert all(without < honest["auc"] for without in honest["expert_left_out_auc"])


def test_a_dead_expert_lowers_cec_and_is_named(honest):
    hidden_BMD, gate_BM1, label_B = sound()
    hidden_BMD[:, 1] = 3.0
    found = evaluated(hidden_BMD, gate_BM1, label_B)
    assert found["cec"] < honest["cec"]
    assert any("expert 1 (cin) is dead" in line for line in warnings(found, ["mlp", "cin", "gdcn"]))


def test_some_dead_dims_are_counted():
    hidden_BMD, gate_BM1, label_B = sound()
    hidden_BMD[:, 0, 2] = 0.0
    assert any("expert 0 has 1 dead dims" in line for line in warnings(evaluated(hidden_BMD, gate_BM1, label_B) | {"expert_dim": WIDTH}))


def test_added_noise_lowers_cec_and_is_named(honest):
    hidden_BMD, gate_BM1, label_B = sound()
    hidden_BMD[:, 2] = torch.randn(ROWS, WIDTH) * 3
    found = evaluated(hidden_BMD, gate_BM1, label_B)
    assert found["cec"] < honest["cec"]
    assert found["auc"] < honest["auc"]
    said = warnings(found)
    assert any("expert 2 alone ranks at chance" in line for line in said)
    assert any("without expert 2 the AUC would be" in line for line in said)


def test_noise_beside_the_signal_shows_as_harm():
    hidden_BMD, gate_BM1, label_B = sound()
    hidden_BMD[:, 2] += torch.randn(ROWS, WIDTH) * 6
    assert any("does harm" in line and "expert 2" in line for line in warnings(evaluated(hidden_BMD, gate_BM1, label_B)))


def test_a_starved_expert_is_named():
    hidden_BMD, gate_BM1, label_B = sound()
    gate_BM1 = torch.tensor([0.49, 0.49, 0.02])[None, :, None].expand(ROWS, EXPERTS, 1)
    assert any("expert 2 is starved: it gets 2.0%" in line for line in warnings(evaluated(hidden_BMD, gate_BM1, label_B)))


def test_a_gate_that_leans_on_one_of_many_experts_is_named():
    hidden_BMD, gate_BM1, label_B = sound(8)
    assert warnings(evaluated(hidden_BMD, gate_BM1, label_B)) == []
    # Seven times .045 is no expert starved by itself, yet together they are worth three.
    gate_BM1 = torch.tensor([0.685, *[0.045] * 7])[None, :, None].expand(ROWS, 8, 1)
    said = warnings(evaluated(hidden_BMD, gate_BM1, label_B))
    assert any("the gate uses 3.4 of 8 experts" in line for line in said)
    assert not any("starved" in line for line in said)


def test_shrunk_outputs_leave_cec_as_it_is_and_are_named(honest):
    hidden_BMD, gate_BM1, label_B = sound()
    hidden_BMD[:, 1] *= 1e-3
    found = evaluated(hidden_BMD, gate_BM1, label_B)
    assert found["cec"] == pytest.approx(honest["cec"], rel=1e-4)
    assert any("expert 1's outputs have shrunk" in line for line in warnings(found))


def test_all_outputs_shrunk_are_named(honest):
    hidden_BMD, gate_BM1, label_B = sound()
    found = evaluated(hidden_BMD * 1e-4, gate_BM1, label_B)
    assert found["cec"] == pytest.approx(honest["cec"], rel=1e-3)
    assert any("all experts' outputs have shrunk" in line for line in warnings(found))


def test_a_rotated_copy_is_named_though_cec_looks_low():
    torch.manual_seed(1)
    hidden_BMD, gate_BM1, label_B = sound()
    hidden_BMD[:, 0] = torch.randn(ROWS, WIDTH)
    hidden_BMD[:, 1] = hidden_BMD[:, 0] @ torch.linalg.qr(torch.randn(WIDTH, WIDTH))[0]
    said = warnings(evaluated(hidden_BMD, gate_BM1, label_B))
    assert any("expert 0 and expert 1 hold the same up to a rotation" in line for line in said)


def test_a_rotation_that_hides_a_common_factor_from_cec_is_named():
    torch.manual_seed(1)
    hidden_BMD, gate_BM1, label_B = sound()
    hidden_BMD[:, 0] = 0.3 * torch.randn(ROWS, WIDTH) + torch.randn(ROWS, 1)
    # Its first axis takes the factor, which all dims of the original hold.
    rotation_DD = torch.linalg.qr(torch.cat([torch.ones(WIDTH, 1), torch.randn(WIDTH, WIDTH - 1)], 1))[0]
    hidden_BMD[:, 1] = hidden_BMD[:, 0] @ rotation_DD
    found = evaluated(hidden_BMD, gate_BM1, label_B)
    assert found["cec_matrix"][0][1] < 0.5 * found["cec_matrix"][0][0]
    assert any("expert 0 and expert 1 hold the same up to a rotation (CKA 1.00) although CEC looks low" in line for line in warnings(found))


def test_a_single_expert_has_nobody_to_cheat():
    assert warnings({"gate_mass": [1.0]}) == []
