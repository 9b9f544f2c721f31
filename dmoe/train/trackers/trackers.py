"""The trackers of a run: rank 0 tells them what its log tells."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from dmoe.errors import UserError
from dmoe.json_text import format_json, parse_json
from dmoe.storage.paths import PATHS, inside, write_text
from dmoe.train.trackers.background import Background
from dmoe.train.trackers.mlflow import MlflowTracker
from dmoe.train.trackers.tensorboard import TensorBoardTracker
from dmoe.train.trackers.tracker import About, Status, Tracker
from dmoe.train.trackers.wandb import WandbTracker

KINDS: dict[str, type[Tracker]] = {"tensorboard": TensorBoardTracker, "mlflow": MlflowTracker, "wandb": WandbTracker}
FILE = "trackers.json"
"""Each tracker's id of the run, by which a run that is resumed goes on with the same record."""
END_SECONDS = {"finished": 30.0, "stopped": 2.0, "failed": 2.0}
"""How long the end of a run waits for its trackers: a scheduler that stops a job, and ranks that fail, give little time."""


class Trackers:
    """All trackers of a run, each in a thread of its own. No method raises or waits, but `end`, which waits for a bounded time.

    Args:
        about: the run; the trackers' ids are read from its folder.
        goes_on: whether to continue the record of an earlier start, if there is one.
        warn: called with one line if a tracker is switched off.
    """

    def __init__(self, about: About, goes_on: bool, made: Mapping[str, Tracker], warn: Callable[[str], None]) -> None:
        self.about, self.goes_on = about, goes_on
        self._lock = threading.Lock()
        self._ids: dict[str, str] | None = None
        self.each = {name: Background(name, tracker, warn) for name, tracker in made.items()}
        for name, one in self.each.items():
            one.call("at its start", partial(self._begin, name, one.tracker))

    @property
    def keep_files(self) -> bool:
        """Whether one of them keeps copies of files."""
        return any(type(one.tracker).files is not Tracker.files for one in self.each.values())

    def scalars(self, part: str, values: Mapping[str, float], step: int) -> None:
        self._call(f"{part} at step {step:,}", "scalars", part, values, step)

    def matrix(self, name: str, values: list[list[float]], step: int) -> None:
        self._call(f"{name} at step {step:,}", "matrix", name, values, step)

    def files(self, paths: Sequence[str]) -> None:
        self._call("files", "files", paths)

    def _call(self, what: str, method: str, *arguments: Any) -> None:
        for one in self.each.values():
            one.call(what, partial(getattr(one.tracker, method), *arguments))

    def end(self, status: Status) -> bool:
        """Ends the records; returns whether all threads have ended: one that hangs in a foreign library is left behind."""
        self._call("at its end", "end", status)
        until = time.monotonic() + END_SECONDS[status]
        ended = [one.end(max(until - time.monotonic(), 0.0)) for one in self.each.values()]
        return all(ended)

    def _begin(self, name: str, tracker: Tracker) -> None:
        with self._lock:
            if self._ids is None:
                self._ids = ids_of(self.about.folder) if self.goes_on else {}
            kept = self._ids.get(name, "")
        found = tracker.begin(replace(self.about, kept=kept))
        with self._lock:
            if found and found != kept:
                self._ids[name] = found
                write_text(inside(self.about.folder, FILE), format_json(self._ids, indent=1) + "\n")


def ids_of(folder: str) -> dict[str, str]:
    """Each tracker's id of a run, from the run's folder.

    Raises:
        UserError: the file of the ids is damaged.
    """
    path = inside(folder, FILE)
    if not PATHS.exists(path):
        return {}
    with PATHS.open(path, "r") as file:
        try:
            tree: Any = parse_json(file.read())
        except ValueError as error:
            raise UserError(f"{path}: damaged: {error}") from None
    return {str(name): str(value) for name, value in tree.items()} if isinstance(tree, dict) else {}
