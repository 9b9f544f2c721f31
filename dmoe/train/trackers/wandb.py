"""Weights & Biases: offline unless WANDB_MODE says otherwise; `wandb sync RUN/wandb/offline-run-*` uploads what it kept."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from dmoe.storage.paths import PATHS
from dmoe.train.trackers.drawing import correlations
from dmoe.train.trackers.tracker import DRAWING, About, Status, Tracker

PROJECT = "dmoe"
EXIT_CODES = {"finished": 0, "stopped": 143, "failed": 1}


class WandbTracker(Tracker):
    """Keeps what it records in the run's folder, until it is uploaded; WANDB_PROJECT, WANDB_DIR and the like mean what they always do."""

    run: Any = None

    def begin(self, about: About) -> str:
        os.environ.setdefault("WANDB_SILENT", "true")
        import wandb

        mode: Any = os.environ.get("WANDB_MODE", "offline")
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=about.name,
            id=about.kept or None,
            # What was kept offline is joined by the id when it is uploaded.
            resume="allow" if about.kept and mode != "offline" else None,
            dir=os.environ.get("WANDB_DIR") or (about.folder if "://" not in about.folder else None),
            mode=mode,
            settings=wandb.Settings(console="off", silent=True),
        )
        self.run.config.update(dict(about.parameters), allow_val_change=True)
        # W&B's own step may never go back, as the step of a run does that resumes from a checkpoint.
        self.run.define_metric("*", step_metric="step")
        return str(self.run.id)

    def scalars(self, part: str, values: Mapping[str, float], step: int) -> None:
        self.run.log({"step": step, **{f"{part}/{name}": value for name, value in values.items()}})

    def matrix(self, name: str, values: list[list[float]], step: int) -> None:
        import wandb

        with DRAWING:
            picture = wandb.Image(correlations(values))
        self.run.log({"step": step, name: picture})

    def files(self, paths: Sequence[str]) -> None:
        import wandb

        kept = wandb.Artifact(f"run-{self.run.id}", type="run")
        for path in paths:
            kept.add_file(PATHS.get_local_path(path))
        self.run.log_artifact(kept)

    def model(self, folder: str, name: str) -> str:
        """Keeps a scorer as an artefact of type `model`."""
        import wandb

        kept = wandb.Artifact(name, type="model")
        kept.add_dir(PATHS.get_local_path(folder))
        self.run.log_artifact(kept)
        return f"{name} of W&B's run {self.run.id}"

    def end(self, status: Status) -> None:
        import wandb

        self.run.finish(exit_code=EXIT_CODES[status])
        # The process that writes the file ends only now: a rank may end without the hooks at exit in which W&B would wait for it.
        wandb.teardown()
