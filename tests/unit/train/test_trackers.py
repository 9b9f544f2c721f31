"""Trackers: what they are told, and that none can end or hold up a run."""

import json
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dmoe.errors import UserError
from dmoe.train.output.console import Reporter
from dmoe.train.run.run_dir import RunDir
from dmoe.train.trackers import background, tracker, trackers
from dmoe.train.trackers.tensorboard import TensorBoardTracker
from dmoe.train.trackers.tracker import About, Tracker, check_installed
from dmoe.train.trackers.trackers import Trackers, ids_of


class Kept(Tracker):
    """Keeps what it is told."""

    def __init__(self, id: str = "") -> None:
        self.id, self.told = id, []  # type: ignore[var-annotated]

    def begin(self, about: About) -> str:
        self.told.append(("begin", about.kept))
        return about.kept or self.id

    def scalars(self, part, values, step):
        self.told.append((part, dict(values), step))

    def end(self, status):
        self.told.append(("end", status))


class Bad(Kept):
    """Does `action` in one of its methods."""

    def __init__(self, where: str, action: Any) -> None:
        super().__init__()
        setattr(self, where, lambda *_: action())


def begin(folder: Path, warned: list[str], goes_on: bool = False, **made: Tracker) -> Trackers:
    return Trackers(About(str(folder), "D-MoE"), goes_on, made, warned.append)


def steps(told: Trackers) -> None:
    for step in range(5):
        told.scalars("train", {"loss": 0.5 + step}, step)
    told.matrix("validation/cec_matrix", [[1.0]], 4)
    told.files(["a"])


def fail() -> None:
    raise ValueError("no such\nserver")


@pytest.mark.parametrize("where", ["begin", "scalars", "matrix", "files", "end"])
@pytest.mark.parametrize("action", [fail, lambda: exit(1)], ids=["raises", "exits"])
def test_a_tracker_that_raises_is_switched_off_with_one_line_and_the_others_go_on(tmp_path, where, action):
    warned: list[str] = []
    other = Kept()
    told = begin(tmp_path, warned, bad=Bad(where, action), other=other)
    steps(told)
    assert told.end("finished")
    (line,) = warned
    assert "run.trackers: bad " in line
    assert "\n" not in line
    assert other.told == [("begin", ""), *(("train", {"loss": 0.5 + step}, step) for step in range(5)), ("end", "finished")]


@pytest.fixture
def hangs():
    """A tracker's thread waits in it until the test is over."""
    until, inside = threading.Event(), threading.Event()

    def hang() -> None:
        inside.set()
        until.wait()

    yield SimpleNamespace(hang=hang, inside=inside)
    until.set()
    for one in threading.enumerate():
        if one.name.startswith("tracker "):
            one.join()


@pytest.mark.parametrize("where", ["begin", "scalars", "matrix", "files", "end"])
def test_a_tracker_that_hangs_holds_up_neither_the_run_nor_its_end(tmp_path, monkeypatch, hangs, where):
    monkeypatch.setitem(trackers.END_SECONDS, "finished", 1.0)
    warned: list[str] = []
    other = Kept()
    told = begin(tmp_path, warned, other=other, bad=Bad(where, hangs.hang))
    # On a busy machine, the thread of a sound tracker may take longer.
    monkeypatch.setattr(told.each["other"], "end", lambda _, end=told.each["other"].end: end(240))
    # Returns while the tracker hangs, or the test would not come to an end.
    steps(told)
    assert where == "end" or hangs.inside.wait(240)
    assert not told.end("finished")
    assert hangs.inside.is_set()
    (line,) = warned
    assert "run.trackers: bad " in line
    assert other.told[-1] == ("end", "finished")


def test_a_tracker_that_hangs_is_switched_off_while_the_run_goes_on(tmp_path, monkeypatch, hangs):
    monkeypatch.setattr(background, "STUCK_SECONDS", 0.0)
    warned: list[str] = []
    told = begin(tmp_path, warned, bad=Bad("begin", hangs.hang))
    hangs.inside.wait()
    steps(told)
    steps(told)
    assert len(warned) == 1


def test_what_waits_for_a_slow_tracker_is_bounded(tmp_path, monkeypatch, hangs):
    monkeypatch.setattr(background, "WAITING_CALLS", 3)
    warned: list[str] = []
    told = begin(tmp_path, warned, bad=Bad("begin", hangs.hang))
    hangs.inside.wait()
    for step in range(3):
        told.scalars("train", {"loss": 0.5}, step)
        assert not warned
    told.scalars("train", {"loss": 0.5}, 3)
    told.scalars("train", {"loss": 0.5}, 4)
    assert len(warned) == 1


def test_a_run_that_goes_on_goes_on_with_its_records(tmp_path):
    first = {"a": Kept("id of a"), "b": Kept("id of b"), "c": Kept()}
    assert begin(tmp_path, [], **first).end("stopped")
    assert json.loads((tmp_path / "trackers.json").read_text()) == {"a": "id of a", "b": "id of b"}
    again = {"a": Kept("another"), "d": Kept("id of d")}
    assert begin(tmp_path, [], goes_on=True, **again).end("finished")
    assert again["a"].told[0] == ("begin", "id of a")
    assert ids_of(str(tmp_path)) == {"a": "id of a", "b": "id of b", "d": "id of d"}


def test_ids_that_cannot_be_kept_or_read_end_no_run(tmp_path):
    warned: list[str] = []
    (tmp_path / "trackers.json").symlink_to(tmp_path / "elsewhere")
    assert begin(tmp_path, warned, a=Kept("x")).end("finished")
    (tmp_path / "trackers.json").unlink()
    (tmp_path / "trackers.json").write_text("{")
    assert begin(tmp_path, warned, goes_on=True, a=Kept("x")).end("finished")
    assert len(warned) == 2
    assert not (tmp_path / "elsewhere").exists()


def test_a_package_that_is_not_installed_is_named_with_its_extra(monkeypatch):
    monkeypatch.setattr(tracker, "find_spec", lambda name: None if name == "wandb" else object())
    check_installed(["tensorboard", "mlflow"])
    with pytest.raises(UserError, match=r"^run\.trackers: wandb .*dmoe\[wandb\]"):
        check_installed(["tensorboard", "wandb"])


def test_tensorboard_has_the_figures_of_the_log(tmp_path):
    """Finite floats of training, the headline figures of validation and the matrix; as before there were other trackers."""
    run = RunDir(str(tmp_path))
    validation: dict[str, Any] = {"auc": None, "logloss": 0.5, "ne": 0.9, "calibration": 1.0, "cec": 0.25, "effective_experts": 2.5}
    validation |= {"cec_floor": 0.1, "auc_error_bound": 0.0, "cec_matrix": [[1.0, 0.25], [0.25, 1.0]]}
    with Reporter(run) as reporter:
        reporter.begin(10, 0)
        reporter.trackers = Trackers(About(str(tmp_path), "D-MoE"), False, {"tensorboard": TensorBoardTracker()}, pytest.fail)
        for step in (1, 2):
            progress: Any = SimpleNamespace(step=step, epoch=0)
            figures = {"loss": 0.5 / step, "cec_batch": 0.25, "samples_per_second": 1.0, "dead_dims": 3, "gradient_ratio": None}
            reporter.trained(progress, figures | {"lr_factor": float("nan")})
        reporter.validated(progress, validation)
        reporter.trackers.scalars("test", {"auc": 0.5}, 2)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    found = {name: [(one.step, one.value) for one in events.Scalars(name)] for name in events.Tags()["scalars"]}
    of_training = {"loss": [(1, 0.5), (2, 0.25)], "cec_batch": [(1, 0.25), (2, 0.25)], "samples_per_second": [(1, 1.0), (2, 1.0)]}
    of_validation = {name: [(2, pytest.approx(validation[name]))] for name in ("logloss", "ne", "calibration", "cec", "effective_experts")}
    expected = {f"train/{name}": points for name, points in of_training.items()}
    assert found == expected | {f"validation/{name}": points for name, points in of_validation.items()}
    assert [one.step for one in events.Images("validation/cec_matrix")] == [2]
