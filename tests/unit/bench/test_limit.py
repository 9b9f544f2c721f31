"""A step's time by kind of operation, by a clock that moves on by one whenever it is read."""

import itertools

import torch

from tools.bench import limit


def test_a_steps_time_is_parted_by_kind_of_operation(monkeypatch):
    ticks = itertools.count()
    monkeypatch.setattr(limit.time, "perf_counter", lambda: float(next(ticks)))
    x = torch.ones(2, 2)

    def step() -> None:
        torch.relu(x @ x)
        for _ in range(5):
            next(ticks)

    found = limit.kinds(step, 3)
    assert found == {"products": 1.0, "elementwise and the rest": 1.0, "pipeline, autograd and python": 4.0}
