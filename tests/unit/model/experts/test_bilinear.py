"""Bilinear maps made in pieces equal the whole sum, in value and in every gradient.

Shapes: B rows, P and F fields, H maps, K dims.
"""

import pytest
import torch

from dmoe.model.experts import bilinear, build_expert

B, H, P, F, K = 11, 3, 4, 5, 2


@pytest.fixture(params=[2, 4, 11, 100])
def _pieces(request, monkeypatch):
    """Pieces that divide the rows not at all, just, and are more than there are."""
    monkeypatch.setattr(bilinear, "_piece_rows", lambda x_BFK: request.param)


def drawn(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, dtype=dtype, requires_grad=True)


def outcome(out: torch.Tensor, *inputs: torch.Tensor) -> list[torch.Tensor]:
    weights = torch.linspace(-1, 2, out.numel(), dtype=out.dtype).view(out.shape)
    return [out.detach(), *torch.autograd.grad(out, inputs, weights)]


@pytest.mark.usefixtures("_pieces")
def test_quadratic_maps_equal_the_sum_over_pairs():
    torch.manual_seed(0)
    weight_HFF, x_BFK = drawn(H, F, F), drawn(B, F, K)
    expected = outcome(torch.einsum("hpf,bpk,bfk->bhk", weight_HFF, x_BFK, x_BFK), weight_HFF, x_BFK)
    torch.testing.assert_close(outcome(bilinear.quadratic_maps(weight_HFF, x_BFK), weight_HFF, x_BFK), expected, rtol=1e-12, atol=1e-13)


@pytest.mark.usefixtures("_pieces")
def test_bilinear_maps_equal_the_sum_over_pairs():
    torch.manual_seed(0)
    inputs = drawn(H, P, F), drawn(B, P, K), drawn(B, F, K)
    expected = outcome(torch.einsum("hpf,bpk,bfk->bhk", *inputs), *inputs)
    torch.testing.assert_close(outcome(bilinear.bilinear_maps(*inputs), *inputs), expected, rtol=1e-12, atol=1e-13)


def test_cin_in_float32_is_as_exact_as_one_large_product():
    """At the size of a training step's fields: the error against float64 is that of float32 sums."""
    torch.manual_seed(0)
    exact = build_expert("cin", 40, 16, layer_maps=[16, 16, 8]).double()
    x_BFK = drawn(96, 40, 16)
    expected = outcome(exact(x_BFK), x_BFK, *exact.parameters())
    single = build_expert("cin", 40, 16, layer_maps=[16, 16, 8])
    single.load_state_dict(exact.state_dict())
    low_BFK = x_BFK.detach().float().requires_grad_()
    for found, wanted in zip(outcome(single(low_BFK), low_BFK, *single.parameters()), expected, strict=True):
        assert (found.double() - wanted).norm() < 2e-6 * wanted.norm()


def test_gradients_add_up_in_float32_where_the_fields_are_bfloat16(monkeypatch):
    monkeypatch.setattr(bilinear, "_piece_rows", lambda x_BFK: 1)
    weight_HFF = torch.zeros(1, 1, 1, dtype=torch.bfloat16, requires_grad=True)
    # 257 is not a bfloat16: added up in it, 512 times 1 would stop at 256.
    bilinear.quadratic_maps(weight_HFF, torch.ones(512, 1, 1, dtype=torch.bfloat16)).sum().backward()
    assert weight_HFF.grad is not None
    assert weight_HFF.grad.item() == 512


def test_autocast_takes_the_fields_in_its_dtype():
    weight_HPF, x_BPK = torch.ones(1, 2, 2), torch.ones(3, 2, 1)
    with torch.autocast("cpu", torch.bfloat16):
        assert bilinear.quadratic_maps(weight_HPF, x_BPK).dtype == torch.bfloat16
        assert bilinear.bilinear_maps(weight_HPF, x_BPK, x_BPK).dtype == torch.bfloat16
    assert bilinear.quadratic_maps(weight_HPF, x_BPK).dtype == torch.float32
