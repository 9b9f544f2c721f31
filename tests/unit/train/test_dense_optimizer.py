"""The fused dense optimizers go on from what the plain ones kept, and step alike."""

from typing import Any

import pytest
import torch
from torch import nn

from dmoe.config.sections import DenseOptimizerConfig, TableOptimizerConfig
from dmoe.errors import UserError
from dmoe.train.optimizer.optimizers import DENSE_CLASSES, Optimizers


def gradients_of(step: int, layer: nn.Linear) -> None:
    generator = torch.Generator().manual_seed(step)
    for parameter in layer.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize("kind", list(DENSE_CLASSES))
def test_a_plain_optimizers_state_is_taken_and_its_steps_are_made(kind):
    settings = DenseOptimizerConfig(kind=kind, lr=0.01, weight_decay=0.1)
    plain_layer, layer = nn.Linear(5, 3), nn.Linear(5, 3)
    more: dict[str, Any] = {} if kind == "sgd" else {"eps": settings.eps}
    plain = DENSE_CLASSES[kind](plain_layer.parameters(), lr=0.01, weight_decay=0.1, **more)
    for step in range(3):
        gradients_of(step, plain_layer)
        plain.step()
    layer.load_state_dict(plain_layer.state_dict())
    ours = Optimizers(nn.Module(), [], dict(layer.named_parameters()), TableOptimizerConfig(), settings)
    names = dict(plain_layer.named_parameters())
    ours.load_dense_state({f"{name}/{key}": value for name, one in names.items() for key, value in plain.state[one].items()})
    for step in range(3, 6):
        for one in (plain_layer, layer):
            gradients_of(step, one)
        plain.step()
        ours.step()
    torch.testing.assert_close(layer.state_dict(), plain_layer.state_dict(), rtol=1e-6, atol=1e-7)
    assert {key.split("/")[1] for key in ours.dense_state()} == {key for state in plain.state.values() for key in state}


def test_a_moving_average_goes_on_from_what_was_kept_and_leaves_steps_alone():
    torch.manual_seed(0)
    layers = {name: nn.Linear(5, 3) for name in ("plain", "averaged", "resumed")}
    for layer in layers.values():
        layer.load_state_dict(layers["plain"].state_dict())
    made = {
        name: Optimizers(nn.Module(), [], dict(layer.named_parameters()), TableOptimizerConfig(), DenseOptimizerConfig(lr=0.1))
        for name, layer in layers.items()
    }
    made["averaged"].begin_average(0.5)
    expected = {name: value.double() for name, value in layers["plain"].state_dict().items()}
    for step in range(1, 13):
        if step == 8:
            kept = {name: value.clone() for name, value in made["averaged"].dense_state().items()}
            layers["resumed"].load_state_dict(layers["averaged"].state_dict())
            made["resumed"].begin_average(0.5)
            made["resumed"].load_dense_state(kept)
            made["resumed"].set_steps(step - 1)
        for name in ("plain", "averaged", *(["resumed"] if step >= 8 else [])):
            gradients_of(step, layers[name])
            made[name].step()
        decay = min(0.5, (1 + step) / (10 + step))
        expected = {name: decay * mean + (1 - decay) * layers["plain"].state_dict()[name] for name, mean in expected.items()}
    for name in ("averaged", "resumed"):
        assert {key: value.tolist() for key, value in layers[name].state_dict().items()} == {
            key: value.tolist() for key, value in layers["plain"].state_dict().items()
        }
        with made[name].averaged():
            torch.testing.assert_close({key: value.double() for key, value in layers[name].state_dict().items()}, expected)
        assert torch.equal(layers[name].weight, layers["plain"].weight)
    assert torch.equal(made["averaged"].dense_state()["weight/ema"], made["resumed"].dense_state()["weight/ema"])
    # Off, it is neither kept nor taken; of another shape it is refused.
    made["plain"].load_dense_state(made["averaged"].dense_state())
    assert not any(key.endswith("/ema") for key in made["plain"].dense_state())
    with pytest.raises(UserError, match="weight/ema"):
        made["resumed"].load_dense_state(kept | {"weight/ema": torch.zeros(2)})


def test_relative_clipping_shortens_a_tensors_step_to_what_its_weights_bear():
    layers = {share: nn.Linear(5, 3) for share in (None, 0.1)}
    layers[0.1].load_state_dict(layers[None].state_dict())
    before = {name: value.clone() for name, value in layers[None].state_dict().items()}
    for share, layer in layers.items():
        settings = DenseOptimizerConfig(kind="sgd", lr=1.0, relative_clip=share)
        optimizers = Optimizers(nn.Module(), [], dict(layer.named_parameters()), TableOptimizerConfig(), settings)
        gradients_of(0, layer)
        # The bias's step is within its room, the matrix's is not.
        layer.bias.grad.mul_(1e-4)
        optimizers.step()
    free, clipped = (layers[share].state_dict() for share in (None, 0.1))
    torch.testing.assert_close(clipped["bias"], free["bias"])
    old, step = before["weight"].double(), (free["weight"] - before["weight"]).double()
    factor = min(1.0, float(((0.1 * old.abs() + 0.01) / step.abs()).min()))
    assert factor < 0.5
    torch.testing.assert_close(clipped["weight"].double(), old + factor * step, rtol=1e-5, atol=1e-6)
