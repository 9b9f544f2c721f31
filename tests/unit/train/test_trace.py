"""--trace: which steps are recorded, and that the file is one that Perfetto reads."""

import json
from pathlib import Path

import pytest
import torch

from dmoe.errors import UserError
from dmoe.train.output.trace import Trace, parse_window


def _run(trace: Trace, steps: int, done: int = 0) -> None:
    for step in range(done, done + steps):
        trace.step(step)
        with torch.profiler.record_function(f"step {step + 1}"):
            torch.ones(4).sum()
    trace.close()


def _steps(path: Path) -> list[str]:
    events = json.loads(path.read_text())["traceEvents"]
    return sorted(e["name"] for e in events if e.get("ph") == "X" and e["name"].startswith("step "))


def test_the_file_holds_the_steps_of_the_window_and_no_other(tmp_path: Path) -> None:
    _run(Trace((3, 2), str(tmp_path), rank=1), steps=6)
    assert _steps(tmp_path / "trace" / "rank-1.pt.trace.json") == ["step 3", "step 4"]


def test_a_run_that_ends_within_the_window_keeps_what_it_made(tmp_path: Path) -> None:
    _run(Trace((2, 9), str(tmp_path), rank=0), steps=3)
    assert _steps(tmp_path / "trace" / "rank-0.pt.trace.json") == ["step 2", "step 3"]


def test_a_resumed_run_counts_steps_from_the_first_start(tmp_path: Path) -> None:
    _run(Trace((3, 2), str(tmp_path), rank=0), steps=4, done=3)
    assert _steps(tmp_path / "trace" / "rank-0.pt.trace.json") == ["step 4"]


def test_without_a_window_or_past_it_nothing_is_written(tmp_path: Path) -> None:
    _run(Trace(None, str(tmp_path), rank=0), steps=3)
    _run(Trace((1, 2), str(tmp_path), rank=0), steps=3, done=7)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["5", "0:3", "3:0", "a:b", "-1:2", "1:2:3", ""])
def test_another_form_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UserError, match=r"FIRST:STEPS.*20:5"):
        parse_window(text)


def test_the_form_is_read() -> None:
    assert parse_window("20:5") == (20, 5)
