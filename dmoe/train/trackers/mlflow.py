"""MLflow: where MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME say, as for every program that uses MLflow."""

import logging
import os
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from dmoe.storage.paths import PATHS
from dmoe.train.trackers.drawing import correlations
from dmoe.train.trackers.tracker import DRAWING, About, Status, Tracker

EXPERIMENT = "dmoe"
MOST_PARAMETERS, LONGEST_PARAMETER = 100, 6000
"""Of one request, and characters of a value: MLflow's own limits."""
SCORER, MATRICES = "scorer", "correlations"
"""Folders of a run's artefacts."""
STATES = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
_NOT_ALLOWED = re.compile(r"[^\w.\- /:]")


class MlflowTracker(Tracker):
    """Uses MLflow's client alone, never its "active run": that one is the program's, of which we may be a part."""

    client: Any = None
    run = ""

    def begin(self, about: About) -> str:
        # A library that is asked to record a run has no reason to print addresses into its log, or to call home.
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.WARNING)
        self.client = MlflowClient()
        if about.kept:
            self.run = about.kept
            self.client.update_run(self.run, status="RUNNING")
            # A parameter of MLflow's never changes: what is other than at the first start is told in a tag.
            if about.changed:
                self.client.set_tag(self.run, "dmoe.changed", "; ".join(about.changed)[:LONGEST_PARAMETER])
            return self.run
        self.run = self.client.create_run(self._experiment(), run_name=about.name, tags={"dmoe.run": about.folder}).info.run_id
        self._parameters(about.parameters)
        return self.run

    def _experiment(self) -> str:
        if found := os.environ.get("MLFLOW_EXPERIMENT_ID"):
            return found
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        known = self.client.get_experiment_by_name(name)
        return str(known.experiment_id if known is not None else self.client.create_experiment(name))

    def _parameters(self, values: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        made = [Param(key_of(key), str(value)[:LONGEST_PARAMETER]) for key, value in values.items()]
        for first in range(0, len(made), MOST_PARAMETERS):
            self.client.log_batch(self.run, params=made[first : first + MOST_PARAMETERS])

    def scalars(self, part: str, values: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self.client.log_batch(self.run, metrics=[Metric(key_of(f"{part}/{name}"), value, now, step) for name, value in values.items()])

    def matrix(self, name: str, values: list[list[float]], step: int) -> None:
        with DRAWING:
            self.client.log_figure(self.run, correlations(values), f"{MATRICES}/{name.replace('/', '_')}_{step:09d}.png")

    def files(self, paths: Sequence[str]) -> None:
        for path in paths:
            self.client.log_artifact(self.run, PATHS.get_local_path(path))

    def model(self, folder: str, name: str) -> str:
        """Uploads a scorer that has an MLmodel file, and makes it the next version of a registered model."""
        import mlflow

        self.client.log_artifacts(self.run, PATHS.get_local_path(folder), SCORER)
        made = mlflow.register_model(f"runs:/{self.run}/{SCORER}", name, await_registration_for=0)
        return f"models:/{name}/{made.version}"

    def end(self, status: Status) -> None:
        self.client.set_terminated(self.run, STATES[status])


def key_of(name: str) -> str:
    """A name that MLflow takes: letters, digits and `_ - . / :` alone."""
    return _NOT_ALLOWED.sub("_", name)
