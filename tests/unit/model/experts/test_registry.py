"""Experts by name: what is wrong is named, and a user's own expert takes part."""

import re

import pytest
import torch
from torch import Tensor, nn

from dmoe.errors import UserError
from dmoe.model.experts import build_expert, expert_kinds, register, registry


@pytest.fixture
def kinds(monkeypatch):
    """A registry that forgets what the test registers."""
    monkeypatch.setattr(registry, "_KINDS", dict(registry._KINDS))


@pytest.mark.parametrize(
    ("kind", "options", "named"),
    [
        ("crosnet", {}, ["'crossnet'"]),
        ("crossnet", {"layer": 2}, ["'layer'", "'num_layers'"]),
        ("mlp", {"zzz": 2}, ["'zzz'", "activation, dropout, hidden, layer_norm"]),
        ("fwfm", {"rank": 2}, ["'rank'"]),
        ("crossnet", {"num_fields_": 2}, ["'num_fields_'"]),
        ("crossnet", {"num_layers": "3"}, ["'num_layers'", "integer", "'3'"]),
        ("crossnet", {"num_layers": True}, ["'num_layers'", "integer", "True"]),
        ("crossnet", {"num_layers": 2.0}, ["'num_layers'", "integer", "2.0"]),
        ("crossnet", {"num_layers": None}, ["'num_layers'", "integer", "None"]),
        ("crossnet", {"num_layers": 0}, ["'num_layers'", "1", "0"]),
        ("crossnet", {"low_rank": -1}, ["'low_rank'", "0", "-1"]),
        ("cin", {"layer_maps": []}, ["'layer_maps'"]),
        ("cin", {"layer_maps": [16, 0]}, ["'layer_maps': 1: ", "1", "0"]),
        ("mlp", {"hidden": 400}, ["'hidden'"]),
        ("mlp", {"hidden": "400"}, ["'hidden'"]),
        ("mlp", {"activation": "gelu"}, ["'activation'", "'relu'", "'silu'", "'gelu'"]),
        ("mlp", {"dropout": 1.0}, ["'dropout'", "less", "1.0"]),
        ("mlp", {"dropout": float("nan")}, ["'dropout'"]),
        ("masknet", {"mask_ratio": 0.0}, ["'mask_ratio'", "greater", "0.0"]),
        ("masknet", {"mask_ratio": float("inf")}, ["'mask_ratio'"]),
        ("finalmlp", {"num_heads": 7}, ["num_heads 7", "400"]),
        ("finalmlp", {"gate_fields_a": [39]}, ["field 39", "0..38"]),
        ("gwpfm", {"groups": [13, 13]}, ["groups", "[13, 13]", "39 fields"]),
        ("gwpfm", {"groups": 3}, ["3 groups", "16 dims"]),
        ("gwpfm", {"groups": 64}, ["groups", "39 fields"]),
        ("gwpfm", {"groups": True}, ["'groups'"]),
    ],
)
def test_a_mistake_is_named(kind, options, named):
    with pytest.raises(UserError) as refused:
        build_expert(kind, 39, 16, **options)
    assert str(refused.value).startswith(f"expert '{kind}': ")
    assert all(word in str(refused.value) for word in named), refused.value


@pytest.mark.parametrize("kind", ["ipnn", "fwfm"])
def test_pairs_need_two_fields(kind):
    with pytest.raises(UserError, match=f"expert '{kind}': 1 field"):
        build_expert(kind, 1, 16)


def test_no_fields_are_refused():
    with pytest.raises(UserError, match="expert 'mlp': 0 fields of 16 dims"):
        build_expert("mlp", 0, 16)


def test_an_integer_is_taken_for_a_float():
    assert build_expert("mlp", 4, 2, dropout=0).out_dim == 400


def test_a_users_own_expert_takes_part(kinds):
    @register("sum_pool")
    class SumPool(nn.Module):
        def __init__(self, num_fields: int, field_dim: int, scale: float = 1.0) -> None:
            super().__init__()
            self.out_dim, self.scale = field_dim, scale

        def flops(self) -> int:
            return 0

        def forward(self, x_BFK: Tensor) -> Tensor:
            return self.scale * x_BFK.sum(1)

    assert "sum_pool" in expert_kinds()
    assert build_expert("sum_pool", 3, 2, scale=2.0)(torch.ones(1, 3, 2)).tolist() == [[6.0, 6.0]]
    with pytest.raises(UserError, match=re.escape("expert 'sum_pool': unknown option 'scal', did you mean 'scale'?")):
        build_expert("sum_pool", 3, 2, scal=2.0)


def test_a_name_that_is_taken_is_refused_and_a_reloaded_class_is_not(kinds):
    with pytest.raises(UserError, match=r"expert 'mlp': .*Other.* dmoe\.model\.experts\.mlp\.MLP"):

        @register("mlp")
        class Other(nn.Module):
            def __init__(self, num_fields: int, field_dim: int) -> None: ...

    kept = registry._KINDS["mlp"]
    assert register("mlp")(kept) is kept


def test_a_class_without_the_sizes_is_refused(kinds):
    with pytest.raises(UserError, match=r"expert 'odd': .*Odd.*field_dim"):

        @register("odd")
        class Odd(nn.Module):
            def __init__(self, num_fields: int) -> None: ...


def test_a_class_that_breaks_the_contract_is_named(kinds):
    class Bare(nn.Module):
        def __init__(self, num_fields: int, field_dim: int, width: int) -> None:
            super().__init__()
            if width:
                self.out_dim = width

    register("bare")(Bare)
    with pytest.raises(UserError, match=r"expert 'bare': .*'width'"):
        build_expert("bare", 3, 2)
    with pytest.raises(UserError, match=r"expert 'bare': Bare\.out_dim .*None"):
        build_expert("bare", 3, 2, width=0)
    with pytest.raises(UserError, match=r"expert 'bare': Bare .*flops"):
        build_expert("bare", 3, 2, width=4)


def test_an_option_that_a_config_cannot_give_is_named(kinds):
    class Holder(nn.Module):
        def __init__(self, num_fields: int, field_dim: int, inner: nn.Module) -> None:
            super().__init__()

    register("holder")(Holder)
    with pytest.raises(UserError, match=r"expert 'holder': .*'inner'.*Module"):
        build_expert("holder", 3, 2, inner="mlp")
