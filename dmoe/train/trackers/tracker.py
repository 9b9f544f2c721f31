"""What a tracker does, and which there are."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, Literal

from dmoe.errors import UserError

Status = Literal["finished", "stopped", "failed"]
PACKAGES = {"tensorboard": "tensorboard", "mlflow": "mlflow", "wandb": "wandb"}
"""The package that each tracker needs, and the extra of dmoe that installs it."""
DRAWING = threading.Lock()
"""matplotlib draws in one thread at a time."""


@dataclass(frozen=True)
class About:
    """A run, as a tracker begins with it.

    Args:
        folder: of the run, local or remote.
        name: the config's variant.
        parameters: every setting, by its key such as `train.batch_size`.
        kept: the tracker's own id of this run, from an earlier start; empty for a new run.
        changed: settings that are not what the run was started with, as `key: before -> now`.
    """

    folder: str
    name: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    kept: str = ""
    changed: Sequence[str] = ()


class Tracker:
    """Records one run; each method does nothing unless overridden.

    One background thread calls them, one at a time, in the order of the run. They may raise whatever they like and take as long as they
    like: `Background` keeps that from the run.
    """

    def begin(self, about: About) -> str:
        """Starts a record of the run, or goes on with the one that `about.kept` names; returns its id, empty where none is needed."""
        return ""

    def scalars(self, part: str, values: Mapping[str, float], step: int) -> None:
        """Finite figures of a step, `part` being train, validation or test."""

    def matrix(self, name: str, values: list[list[float]], step: int) -> None:
        """Correlations of the experts, [M, M] in 0..1."""

    def files(self, paths: Sequence[str]) -> None:
        """Keeps copies of files, local or remote."""

    def model(self, folder: str, name: str) -> str:
        """Keeps a copy of a scorer and registers it under a name; returns what to call it, empty where the tracker has no registry."""
        return ""

    def end(self, status: Status) -> None:
        """Ends the record."""


def check_installed(names: Sequence[str]) -> None:
    """Whether the packages of these trackers are installed; none is imported.

    Raises:
        UserError: names the first one that is not.
    """
    for name in names:
        if find_spec(PACKAGES[name]) is None:
            raise UserError(f"run.trackers: {name} is not installed: install dmoe[{name}], or leave it out of the list")
