"""The switches of the science: gates, alpha over the steps, a floor of the loss, and what a model is without one of its experts.

Shapes: B rows, M experts, D dims.
"""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from dmoe.config.config import Config
from dmoe.config.model_sections import CorrelationConfig, ModelConfig
from dmoe.model.assemble import assemble
from dmoe.model.gate import MMoEGate
from dmoe.model.losses.correlation import CorrelationLoss
from dmoe.model.losses.distillation import Distillation
from dmoe.model.losses.objective import Objective
from dmoe.model.mixture import Outputs
from tests.unit.serve.test_scorer import DIMS, EXPERTS, MODEL


def test_alpha_rises_and_falls():
    config = CorrelationConfig(alpha=1.0, warmup_steps=4, decay_steps=10)
    assert [config.alpha_factor(step) for step in (0, 3, 4, 9, 14, 99)] == pytest.approx([0.25, 1.0, 1.0, 0.5, 0.0, 0.0])
    assert CorrelationConfig().alpha_factor(0) == 1.0


def test_the_mmoe_gate_reads_every_table_set_once():
    gate = MMoEGate([3, 3, 5], [0, 0, 1])
    assert gate.logits.in_features == 8
    inputs = [torch.randn(4, 3)] * 2 + [torch.randn(4, 5)]
    expected = gate.logits(torch.cat([inputs[0], inputs[2]], 1)).softmax(1)
    torch.testing.assert_close(gate(inputs).squeeze(2), expected)


def outputs(hidden_BMD: torch.Tensor) -> Outputs:
    rows, experts, _ = hidden_BMD.shape
    none = torch.zeros(rows, 0)
    return Outputs(torch.zeros(rows), hidden_BMD, torch.ones(rows, experts, 1) / experts, none, none)


def test_below_its_floor_the_loss_has_no_gradient():
    torch.manual_seed(0)
    hidden_BMD = torch.randn(50, 2, 3, requires_grad=True)
    value = float(CorrelationLoss()(hidden_BMD.detach(), torch.ones(50)).loss)
    for floor, moves in ((value * 1.1, False), (value * 0.9, True)):
        hidden_BMD.grad = None
        objective = Objective(CorrelationLoss(), 1.0, "hidden", 0.0, stop_below=floor)
        loss, parts = objective(outputs(hidden_BMD), [], torch.zeros(50), torch.ones(50))
        loss.backward()
        assert bool(hidden_BMD.grad.abs().max() > 0) == moves
        assert float(parts.correlation) == pytest.approx(value)


def test_a_teachers_word_pulls_each_logit_to_its_probability():
    """The gradient of the divergence from q is weight * (p - q), a mean over the rows that count."""
    draw = torch.Generator().manual_seed(0)
    logit_B = torch.randn(6, generator=draw, dtype=torch.float64).requires_grad_()
    label_B, teacher_B = (torch.rand(6, generator=draw, dtype=torch.float64) for _ in range(2))
    weight_B = torch.tensor([1.0, 2.0, 1.0, 0.5, 1.0, 0.0], dtype=torch.float64)
    rest = outputs(torch.randn(6, 2, 3, generator=draw, dtype=torch.float64))._replace(logit_B=logit_B)
    objective = Objective(CorrelationLoss(), 0.0, "hidden", 0.0, distillation=Distillation(0.7))
    p_B = logit_B.detach().sigmoid()
    for teacher, factor in ((teacher_B, 0.7), (None, 0.0)):
        logit_B.grad = None
        loss, parts = objective(rest, [], label_B, weight_B, None if teacher is None else teacher.logit())
        loss.backward()
        pull_B = ((p_B - label_B) + factor * (p_B - teacher_B)) * weight_B / weight_B.sum()
        torch.testing.assert_close(logit_B.grad, pull_B)
        apart_B = teacher_B * (teacher_B / p_B).log() + (1 - teacher_B) * ((1 - teacher_B) / (1 - p_B)).log()
        torch.testing.assert_close(parts.auxiliary, factor * (apart_B * weight_B).sum() / weight_B.sum())


def test_the_label_itself_is_not_counted_within_classes():
    torch.manual_seed(0)
    label_B = (torch.rand(4000) < 0.3).float()
    hidden_BMD = torch.randn(4000, 2, 3) + 3 * label_B[:, None, None]
    loss = CorrelationLoss()
    assert loss(hidden_BMD, torch.ones(4000)).loss > 0.5
    assert loss(hidden_BMD, torch.ones(4000), label_B).loss < 0.03


@pytest.mark.parametrize("tower", ["shared", "own"])
def test_the_mixture_of_logits_is_the_gates_sum_of_them(tower):
    torch.manual_seed(0)
    model = ModelConfig.model_validate(MODEL.model_dump() | {"mixture": "logits", "expert_tower": tower})
    mixture = assemble(model, fields=2, dense=3, experts=EXPERTS, set_dims=DIMS, set_of_expert=[0, 1]).double().eval()
    mixture.controls.leave_out = True
    found = mixture(torch.randn(6, 3).double(), [torch.randn(6, 2, dim).double() for dim in DIMS])
    towers = [one.layers for one in mixture.expert_towers] if tower == "own" else [mixture.tower.layers] * 2
    for row in range(6):
        logits = []
        for expert, (hidden, _, last) in enumerate(towers):
            a = (hidden.weight @ found.hidden_BMD[row, expert] + hidden.bias).detach().numpy()
            logits.append(float((a / (1 + np.exp(-a))) @ last.weight[0].detach().numpy() + last.bias.detach().numpy()[0]))
        gate = found.gate_BMG[row, :, 0].tolist()
        assert found.expert_logit_BM[row].tolist() == pytest.approx(logits)
        assert found.logit_B[row].item() == pytest.approx(gate[0] * logits[0] + gate[1] * logits[1])
        assert found.left_out_logit_BM[row].tolist() == pytest.approx(logits[::-1])
    assert tower == "shared" or mixture.tower is None


@pytest.mark.parametrize(
    "tree",
    [
        {"model": {"mixture": "logits", "gate": "elementwise"}},
        {"model": {"expert_tower": "own"}},
        {"supervision": {"mixture_weight": 0, "expert_weight": 1}},
        {"supervision": {"mixture_weight": 0}, "model": {"mixture": "logits", "gate": "mean"}},
    ],
    ids=str,
)
def test_what_nothing_would_train_is_refused(tree):
    with pytest.raises(ValidationError):
        Config.model_validate(tree)


def test_without_an_expert_the_gate_is_shared_by_the_others():
    torch.manual_seed(0)
    mixture = assemble(MODEL, fields=2, dense=3, experts=EXPERTS, set_dims=DIMS, set_of_expert=[0, 1]).eval()
    dense_BI, sets = torch.randn(6, 3), [torch.randn(6, 2, dim) for dim in DIMS]
    assert mixture(dense_BI, sets).left_out_logit_BM.shape == (6, 0)
    mixture.controls.leave_out = True
    found = mixture(dense_BI, sets)
    # Of two experts, the model without one is the other alone.
    torch.testing.assert_close(found.left_out_logit_BM, found.expert_logit_BM.flip(1))
    torch.testing.assert_close(mixture.logits(dense_BI, sets), found.logit_B)
