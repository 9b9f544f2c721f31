"""A moving average of the dense parameters, kept in the checkpoint beside them: smoother than the weights of the last step."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from dmoe.checkpoint.index import EMA
from dmoe.errors import UserError

WARM_UP = 10


class MovingAverage:
    """After each step the average becomes decay * average + (1 - decay) * parameter. It starts as a copy of the parameters.

    After s steps the decay is (1 + s) / (10 + s) at most, so that the average soon leaves the initial weights.

    Args:
        parameters: by name.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        self.parameters, self.decay = dict(parameters), decay
        self.means = {name: one.detach().clone() for name, one in parameters.items()}

    @torch.no_grad()
    def step(self, steps: int) -> None:
        """Adds the current parameters to the averages. `steps`: the number of steps so far."""
        decay = min(self.decay, (1 + steps) / (WARM_UP + steps))
        for name, parameter in self.parameters.items():
            self.means[name].lerp_(parameter, 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Replaces the parameters by their averages while the context is open."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for name, parameter in self.parameters.items():
            kept = parameter.clone()
            parameter.copy_(self.means[name])
            self.means[name].copy_(kept)

    def state(self) -> dict[str, Tensor]:
        """`parameter/ema` -> tensor."""
        return {f"{name}/{EMA}": mean for name, mean in self.means.items()}

    def load(self, kept: Mapping[str, Tensor]) -> None:
        """Loads a result of `state`. An average that is not in it starts as a copy of its parameter.

        Raises:
            UserError: an average has another shape or type than its parameter.
        """
        for name, parameter in self.parameters.items():
            mean = kept.get(f"{name}/{EMA}", parameter.detach())
            if mean.dtype != parameter.dtype or mean.shape != parameter.shape:
                found = [f"{one.dtype} {list(one.shape)}" for one in (mean, parameter)]
                raise UserError(f"moving average '{name}/{EMA}' is {found[0]}, its parameter is {found[1]}")
            self.means[name] = mean.to(parameter.device).clone()
