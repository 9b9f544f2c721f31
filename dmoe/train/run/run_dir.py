"""The run directory: config, environment, plan, metrics, checkpoints; written by rank 0 alone."""

import json
import os
import platform
import sys
from typing import Any

import torch.distributed as dist

from dmoe.checkpoint.index import INDEX, refuse, verify_checkpoint
from dmoe.config import Config, dump_config, load_config
from dmoe.data.dataset.manifest import Manifest
from dmoe.distributed import broadcast_object, rank, world_size
from dmoe.errors import UserError
from dmoe.paths import PATHS, append_text, inside, join, write_text

CONFIG, SCHEMA = "config.yaml", "manifest.json"


class RunDir:
    """Where a run keeps what it makes.

    The directory may come from anyone, so that none of its files and checkpoints may be a link: nothing outside of it is written or
    removed. The directory itself may be one.

    Args:
        path: local, or any URI that iopath has a handler for.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def file(self, *names: str) -> str:
        """The path of one of the run's files or folders.

        Raises:
            UserError: it is a link, or lies outside.
        """
        return inside(self.path, *names)

    def create(self, config: Config, manifest: Manifest, plan: dict[str, Any]) -> None:
        """Writes what describes the run, before it begins; the config last, since it is what makes the folder a run's.

        Raises:
            UserError: on every rank, where rank 0 cannot write there.
        """
        problem = None
        if rank() == 0:
            try:
                PATHS.mkdirs(self.path)
                self.forget_after(-1)
                self._text("environment.json", json.dumps(environment(), indent=1) + "\n")
                self._text("plan.json", json.dumps(plan, indent=1) + "\n")
                self._text(SCHEMA, json.dumps(manifest.model_dump(mode="json"), indent=1) + "\n")
                self._text(CONFIG, dump_config(config))
            except UserError as error:
                problem = str(error)
            except OSError as error:
                problem = f"run.dir: cannot write in {self.path} ({(error.strerror or str(error)).lower()}); choose another"
        if problem := broadcast_object(problem):
            raise UserError(problem)

    def resumed(self, step: int, refused: list[str], config: Config, plan: dict[str, Any]) -> list[str]:
        """Notes in resumes.jsonl that the run goes on, and cuts metrics.jsonl back to the step: what came after is about to happen again.

        Returns:
            The settings that are not what the run was started with, as `key: before -> now`.
        """
        changed: list[str] = []
        if rank() == 0:
            before, now = flat(load_config(self.file(CONFIG)).model_dump(mode="json")), flat(config.model_dump(mode="json"))
            changed = [f"{key}: {before.get(key)} -> {now.get(key)}" for key in sorted(before | now) if before.get(key) != now.get(key)]
            self.forget_after(step)
            line = {"step": step, "refused": refused, "changed": changed, "plan": plan, "environment": environment()}
            append_text(self.file("resumes.jsonl"), json.dumps(line) + "\n")
        return changed

    def holds_a_run(self) -> bool:
        return PATHS.exists(self.file(CONFIG))

    def log(self, kind: str, figures: dict[str, Any]) -> None:
        """Adds a line to metrics.jsonl."""
        if rank() == 0:
            append_text(self.file("metrics.jsonl"), json.dumps({"kind": kind, **figures}) + "\n")

    def forget_after(self, step: int) -> None:
        """Cuts metrics.jsonl back to a step from which a run is resumed: what came after is about to happen again."""
        path = self.file("metrics.jsonl")
        if rank() == 0 and PATHS.exists(path):
            with PATHS.open(path, "r") as file:
                lines = [line for line in file if _step_of(line) <= step]
            self._text("metrics.jsonl", "".join(lines))

    def finish(self, figures: dict[str, Any], name: str = "metrics.json") -> None:
        """Writes the final figures."""
        if rank() == 0:
            self._text(name, json.dumps(figures, indent=1) + "\n")

    def checkpoint(self, step: int) -> str:
        return self.file("checkpoints", f"step-{step:09d}")

    def checkpoints(self) -> list[int]:
        """Steps of the published checkpoints, oldest first."""
        folder = self.file("checkpoints")
        if not PATHS.exists(folder):
            return []
        names = [name for name in PATHS.ls(folder) if name.startswith("step-") and name[5:].isdigit()]
        return sorted(int(name[5:]) for name in names if PATHS.exists(join(inside(folder, name), INDEX)))

    def newest_sound(self) -> tuple[int, list[str]] | None:
        """Step of the newest checkpoint that passes verification, and why newer ones were passed over; None where there is none.

        Every rank has to call it: each reads its share of the files.

        Raises:
            UserError: on every rank, where there are checkpoints and none is sound.
        """
        refused: list[str] = []
        for step in reversed(broadcast_object(self.checkpoints() if rank() == 0 else None)):
            problem = problem_of(self.checkpoint(step))
            if problem is None:
                return step, refused
            refused.append(problem)
        if refused:
            raise UserError(f"no sound checkpoint in {self.path}: {refused[0]}")
        return None

    def set_aside_after(self, step: int) -> None:
        """Takes the damaged checkpoints after a step out of the count, so that the policy does not keep them in place of sound ones."""
        if rank() == 0:
            for later in self.checkpoints():
                if later > step:
                    refuse(self.checkpoint(later))

    def prune(self, keep: int, best: int | None) -> None:
        """Removes all but the newest `keep` checkpoints and the best."""
        if rank() == 0:
            steps = self.checkpoints()
            for step in steps[: max(len(steps) - keep, 0)]:
                if step != best:
                    folder = self.checkpoint(step)
                    # The index first: a half-removed checkpoint must not look like one.
                    PATHS.rm(join(folder, INDEX))
                    for name in PATHS.ls(folder):
                        PATHS.rm(join(folder, name))
                    if os.path.isdir(folder):
                        os.rmdir(folder)

    def _text(self, name: str, text: str) -> None:
        write_text(self.file(name), text)


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A tree of settings as `train.batch_size` -> value."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        leaves |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {prefix + key: value}
    return leaves


def problem_of(folder: str) -> str | None:
    """Why a checkpoint is not sound, on all ranks, each of which has read its share of the files; None where it is."""
    problem = None
    try:
        verify_checkpoint(folder, rank(), world_size())
    except UserError as error:
        problem = str(error)
    return _first(problem)


def _first(problem: str | None) -> str | None:
    """The first rank's problem, on all ranks."""
    if world_size() == 1:
        return problem
    problems: list[str | None] = [None] * world_size()
    dist.all_gather_object(problems, problem)
    return next((found for found in problems if found), None)


def _step_of(line: str) -> int:
    try:
        return int(json.loads(line).get("step", 0))
    except (ValueError, AttributeError):
        return 1 << 62


def environment() -> dict[str, Any]:
    """What a reader of the figures would ask of the machine and the versions."""
    from importlib.metadata import PackageNotFoundError, version

    import torch

    def installed(name: str) -> str | None:
        try:
            return version(name)
        except PackageNotFoundError:
            return None

    names = ["dmoe", "torch", "torchrec", "fbgemm-gpu", "fbgemm-gpu-cpu", "torchx", "numpy", "pyarrow"]
    return {
        "command": sys.argv,
        "world_size": world_size(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "versions": {name: found for name in names if (found := installed(name))},
    }
