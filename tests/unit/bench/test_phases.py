"""Where a step's time goes, by a clock that the step itself moves on."""

import pytest
import torch
from torch.profiler import record_function

from tools.bench import phases


def test_a_steps_time_is_parted_by_range_and_by_operator(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(phases.time, "perf_counter", lambda: now[0])
    x = torch.ones(2, 2)

    def step() -> None:
        with record_function("## forward 7 ##"):
            torch.relu(x @ x)
            now[0] += 3
            with record_function(phases.LOSS):
                now[0] += 2
        with record_function("## backward ##"):
            now[0] += 4
        now[0] += 1

    before = record_function.__enter__
    by_phase, by_kind = phases.measure(step, 3)
    assert record_function.__enter__ is before
    told = {name: ms for name, ms in by_phase.items() if ms}
    assert told == pytest.approx({"forward: dense": 3000, "forward: loss": 2000, "backward: dense": 4000, "rest": 1000})
    assert set(by_kind) >= {"products", "elementwise and the rest", phases.REST}
    assert sum(by_kind.values()) == pytest.approx(10_000)


def test_operators_are_listed_by_their_shapes(monkeypatch):
    x = torch.ones(3, 2)
    listed = phases.per_operation(lambda: (x.t() @ x).exp(), 2).splitlines()
    assert any("1 x aten::mm [2, 3] [3, 2]" in line for line in listed)
    assert any("1 x aten::exp [2, 2]" in line for line in listed)
