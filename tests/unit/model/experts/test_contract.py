"""What every expert owes: gradients, empty batches, FLOPs that count its products, rows that do not see each other, docs that run."""

import doctest
import importlib

import pytest
import torch
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from dmoe.model.experts import build_expert, expert_kinds

TINY = {
    "crossnet": [{}, {"low_rank": 2}],
    "cin": [{"layer_maps": [3, 2]}, {"layer_maps": [3]}],
    "finalmlp": [{"hidden_a": [6, 4], "hidden_c": [4], "num_heads": 2, "fused_dim": 3, "gate_fields_a": [0], "gate_fields_c": [1, 2]}],
    "ipnn": [{"hidden": [5, 4], "layer_norm": True}],
    "masknet": [{"block_dim": 4}, {"block_dim": 4, "mode": "serial"}],
    "mlp": [{"hidden": [5, 4]}, {"hidden": [5, 4], "activation": "silu", "layer_norm": True}],
    "wukong": [
        {"fm_fields": 2, "linear_fields": 1, "rank": 2, "hidden": [4]},
        {"fm_fields": 2, "linear_fields": 2, "rank": 2, "hidden": [4]},
    ],
}
BUNDLED = ["cin", "crossnet", "finalmlp", "fwfm", "gdcn", "gwpfm", "ipnn", "masknet", "mlp", "wukong"]
CASES = [pytest.param(kind, options, id=f"{kind}-{index}") for kind in BUNDLED for index, options in enumerate(TINY.get(kind, [{}]))]
# Element-wise products, which torch's counter does not see: their share of flops() at F = 39, K = 16.
ELEMENTWISE_SHARE = {"cin": 0.03, "crossnet": 0.01, "gdcn": 0.005, "masknet": 0.002, "finalmlp": 0.006, "fwfm": 0.03}


def test_every_bundled_kind_is_tested_here():
    assert set(BUNDLED) <= set(expert_kinds())


@pytest.mark.parametrize(("kind", "options"), CASES)
def test_gradients_equal_finite_differences(kind, options):
    torch.manual_seed(0)
    expert = build_expert(kind, 4, 2, **options).double()
    names, parameters = zip(*expert.named_parameters(), strict=True)

    def forward(x, *values):
        return functional_call(expert, dict(zip(names, values, strict=True)), (x,))

    x = torch.randn(3, 4, 2, dtype=torch.float64, requires_grad=True)
    # Along random directions: entry by entry costs minutes for the larger experts.
    assert torch.autograd.gradcheck(forward, (x, *parameters), fast_mode=True)


@pytest.mark.parametrize("kind", BUNDLED)
def test_default_expert_is_finite_and_trains_every_parameter(kind):
    torch.manual_seed(0)
    expert = build_expert(kind, 39, 16)
    x = torch.randn(64, 39, 16, requires_grad=True)
    out = expert(x)
    assert out.shape == (64, expert.out_dim)
    assert out.isfinite().all()
    (out * torch.randn_like(out)).sum().backward()
    for name, gradient in [("x", x.grad), *((name, parameter.grad) for name, parameter in expert.named_parameters())]:
        assert gradient is not None, name
        assert gradient.isfinite().all(), name
        assert gradient.any(), name


@pytest.mark.parametrize(("kind", "options"), CASES)
def test_a_batch_of_no_rows_gives_no_rows_and_zero_gradients(kind, options):
    expert = build_expert(kind, 4, 2, **options)
    x = torch.zeros(0, 4, 2, requires_grad=True)
    out = expert(x)
    assert out.shape == (0, expert.out_dim)
    out.sum().backward()
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in expert.parameters())


@pytest.mark.parametrize(("kind", "options"), CASES)
def test_a_row_does_not_depend_on_the_others(kind, options):
    torch.manual_seed(0)
    expert = build_expert(kind, 4, 2, **options).double()
    x = torch.randn(5, 4, 2, dtype=torch.float64)
    torch.testing.assert_close(expert(x)[3:4], expert(x[3:4]), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("kind", "options"),
    [(kind, {}) for kind in BUNDLED if kind != "gwpfm"]
    + [
        ("crossnet", {"low_rank": 64}),
        ("cin", {"layer_maps": [8, 8, 8]}),
        ("masknet", {"mode": "serial"}),
        ("finalmlp", {"gate_fields_a": [0, 3]}),
    ],
)
def test_flops_count_what_the_forward_multiplies(kind, options):
    expert = build_expert(kind, 39, 16, **options)
    with FlopCounterMode(display=False) as counter:
        expert(torch.zeros(8, 39, 16))
    counted = counter.get_total_flops() / 8
    share = ELEMENTWISE_SHARE.get(kind, 0)
    assert counted <= expert.flops() <= counted * (1 + share)


def test_flops_of_gwpfm_are_its_element_wise_products():
    # Two groups, D = 8: r and the product for 4 pairs of groups, 39 own squares, r for 2 groups.
    assert build_expert("gwpfm", 39, 16).flops() == 2 * 8 * (2 * 4 + 39 + 2)


@pytest.mark.parametrize("kind", ["mlp", "ipnn", "masknet", "finalmlp"])
def test_dropout_acts_in_training_alone(kind):
    torch.manual_seed(0)
    expert, x = build_expert(kind, 39, 16, dropout=0.5), torch.randn(8, 39, 16)
    assert not torch.equal(expert(x), expert(x))
    expert.eval()
    assert torch.equal(expert(x), expert(x))


@pytest.mark.parametrize("kind", BUNDLED)
def test_bfloat16_autocast_runs_close_to_float32(kind):
    torch.manual_seed(0)
    expert, x = build_expert(kind, 39, 16), torch.randn(16, 39, 16) * 0.1
    exact = expert(x)
    with torch.autocast("cpu", torch.bfloat16):
        low = expert(x)
    assert (low.float() - exact).norm() < 0.05 * exact.norm()


@pytest.mark.parametrize("module", [*BUNDLED, "registry"])
def test_examples_in_the_docs_run(module):
    result = doctest.testmod(importlib.import_module(f"dmoe.model.experts.{module}"), extraglobs={"torch": torch})
    assert (result.failed, result.attempted > 0) == (0, True)
