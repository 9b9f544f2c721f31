"""The checkpoints of a run: which there are, the newest, and the best. Does not need torch."""

import os
from pathlib import Path

from dmoe.checkpoint.index import INDEX, read_index, step_of
from dmoe.errors import UserError
from dmoe.storage.paths import PATHS, inside, join


def folder_of(run: str, step: int) -> str:
    """The folder of the checkpoint of a step."""
    return inside(run, "checkpoints", f"step-{step:09d}")


def steps_in(run: str) -> list[int]:
    """The steps of the published checkpoints, in ascending order."""
    folder = inside(run, "checkpoints")
    if not PATHS.exists(folder):
        return []
    steps = sorted(step for name in PATHS.ls(folder) if (step := step_of(name)) is not None)
    return [step for step in steps if PATHS.exists(join(folder_of(run, step), INDEX))]


def _some_steps_in(run: str) -> list[int]:
    if not (steps := steps_in(run)):
        raise UserError(f"{run}: neither a checkpoint (no {INDEX}) nor a run with one (no checkpoints/step-*/{INDEX})")
    return steps


def best_step(run: str) -> int:
    """The step of the checkpoint with the best validation AUC, which is recorded in the newest checkpoint.

    Raises:
        UserError: the run has no checkpoint.
    """
    steps = _some_steps_in(run)
    best = read_index(folder_of(run, steps[-1])).progress.get("best_step")
    return best if best in steps else steps[-1]


def newest(path: str) -> str:
    """The checkpoint at `path`, or the newest checkpoint of the run at `path`.

    Raises:
        UserError: there is neither.
    """
    if PATHS.exists(join(path, INDEX)):
        return path
    return folder_of(path, _some_steps_in(path)[-1])


def prune(run: str, keep: int, best: int | None) -> None:
    """Removes all checkpoints except the newest `keep` and the best one."""
    for step in [step for step in steps_in(run)[:-keep] if step != best]:
        folder = folder_of(run, step)
        # The index first: a partly removed checkpoint must not look complete.
        PATHS.rm(join(folder, INDEX))
        for name in PATHS.ls(folder):
            PATHS.rm(join(folder, name))
        if os.path.isdir(folder):
            os.rmdir(folder)


def checkpoint_of(path: str) -> tuple[str, str]:
    """The folder of a checkpoint, and of the run that it is of.

    Args:
        path: a checkpoint, or a run, whose best checkpoint is taken.

    Raises:
        UserError: neither.
    """
    if not PATHS.exists(join(path, INDEX)):
        return folder_of(path, best_step(path)), path
    return path, path.rstrip("/").rsplit("/", 2)[0] if "://" in path else str(Path(path).resolve().parent.parent)
