"""The run directory: config, environment, plan, metrics, checkpoints. Only rank 0 writes to it."""

import contextlib
import errno
import os
import platform
import re
import sys
from typing import Any

from dmoe.checkpoint.index import refuse, verify_checkpoint
from dmoe.checkpoint.of_run import folder_of, steps_in
from dmoe.config.config import Config, dump_config, load_config
from dmoe.data.dataset.manifest import Manifest
from dmoe.distributed import broadcast_object, first_problem, on_rank_0, rank, world_size
from dmoe.errors import UserError, reason_of
from dmoe.json_text import defined, format_json, parse_json
from dmoe.names import show
from dmoe.storage.lock import FILE as LOCK
from dmoe.storage.lock import share, take
from dmoe.storage.paths import PATHS, append_text, inside, write_text
from dmoe.train.run.run_inputs import CONFIG, SCHEMA
from dmoe.version import version_of

ENDING_SECONDS = 10.0
"""How long to wait for the lock of another run that is about to end, such as ranks whose launcher was killed."""


class RunDir:
    """The directory of a run.

    The directory may come from an untrusted source, so its files and checkpoints must not be links: nothing outside is written or removed.
    The directory itself may be a link.

    Args:
        path: local, or any URI that iopath has a handler for.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._lock: int | None = None

    def lock(self) -> None:
        """Locks the directory against other trainings until the process of every rank has ended, or `unlock`. Every rank must call it.

        A remote directory is not locked, since object stores have no locks.

        Raises:
            UserError: on every rank, if another training holds the lock, or the directory cannot be written.
        """
        if "://" in self.path:
            return
        # Rank 0 takes an exclusive lock, then all ranks share it: a rank that outlives the others still blocks the next training.
        for turn in (rank() == 0, rank() != 0):
            problem = self._take() if turn else None
            if problem := first_problem(problem):
                self.unlock()
                raise UserError(problem)

    def _take(self) -> str | None:
        try:
            self._lock = take(self.path, ENDING_SECONDS if rank() == 0 else 0.0, shared=rank() != 0)
            if rank() == 0:
                os.pwrite(self._lock, f"{os.getpid()} {platform.node()}\n".ljust(80).encode(), 0)
                share(self._lock)
        except BlockingIOError:
            return f"run.dir: another training{_holder(self.path)} writes in {self.path}; wait for its end, or choose another run.dir"
        except UserError as error:
            return str(error)
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK):
                return cannot_write(self.path, error)
            if rank() == 0:
                show(f"run.dir: {self.path} is on a file system without locks: start no second training in it", sys.stderr)
        return None

    def unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def file(self, *names: str) -> str:
        """The path of a file or folder of the run.

        Raises:
            UserError: it is a link, or outside the directory.
        """
        return inside(self.path, *names)

    def create(self, config: Config, manifest: Manifest, plan: dict[str, Any]) -> None:
        """Writes the files that describe the run before it starts. The config is last: a directory with a config holds a run.

        Raises:
            UserError: on every rank, if rank 0 cannot write there, or the directory holds a data set.
        """

        def write() -> None:
            try:
                PATHS.mkdirs(self.path)
                # A run that was killed here has an environment.json, which is written first.
                if PATHS.exists(self.file(SCHEMA)) and not PATHS.exists(self.file("environment.json")):
                    raise UserError(f"run.dir: {self.path} holds a data set ({SCHEMA}), which it would replace; choose another directory")
                self.forget_after(-1)
                self._text("environment.json", format_json(environment(), indent=1) + "\n")
                self._text("plan.json", format_json(plan, indent=1) + "\n")
                self._text(SCHEMA, format_json(manifest.model_dump(mode="json"), indent=1) + "\n")
                self._text(CONFIG, dump_config(config))
            except OSError as error:
                raise UserError(cannot_write(self.path, error)) from None

        on_rank_0(write)

    def resumed(self, step: int, refused: list[str], config: Config, plan: dict[str, Any]) -> list[str]:
        """Records in resumes.jsonl that the run is resumed, and removes later steps from metrics.jsonl.

        Returns:
            The settings that have changed since the start of the run, as `key: before -> now`.
        """
        changed: list[str] = []
        if rank() == 0:
            before, now = flat(load_config(self.file(CONFIG)).model_dump(mode="json")), flat(config.model_dump(mode="json"))
            changed = [f"{key}: {before.get(key)} -> {now.get(key)}" for key in sorted(before | now) if before.get(key) != now.get(key)]
            self.forget_after(step)
            line = {"step": step, "refused": refused, "changed": changed, "plan": plan, "environment": environment()}
            append_text(self.file("resumes.jsonl"), format_json(line) + "\n")
        return changed

    def holds_a_run(self) -> bool:
        return PATHS.exists(self.file(CONFIG))

    def log(self, kind: str, figures: dict[str, Any]) -> None:
        """Appends a line to metrics.jsonl. Undefined metrics are null."""
        if rank() == 0:
            append_text(self.file("metrics.jsonl"), format_json({"kind": kind, **defined(figures)}) + "\n")

    def forget_after(self, step: int) -> None:
        """Removes the lines after a step from metrics.jsonl: a resumed run will write them again."""
        path = self.file("metrics.jsonl")
        if rank() == 0 and PATHS.exists(path):
            with PATHS.open(path, "r") as file:
                lines = [line for line in file if _step_of(line) <= step]
            self._text("metrics.jsonl", "".join(lines))

    def finish(self, figures: dict[str, Any], name: str = "metrics.json") -> None:
        """Writes the final metrics. Undefined metrics are null."""
        if rank() == 0:
            self._text(name, format_json(defined(figures), indent=1) + "\n")

    def checkpoint(self, step: int) -> str:
        return folder_of(self.path, step)

    def checkpoints(self) -> list[int]:
        """The steps of the published checkpoints, in ascending order."""
        return steps_in(self.path)

    def newest_sound(self) -> tuple[int, list[str]] | None:
        """The step of the newest sound checkpoint, and why newer ones are damaged; None if there is no checkpoint.

        Every rank must call it; each rank verifies a part of the files.

        Raises:
            UserError: on every rank, if there are checkpoints but none is sound.
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
        """Sets damaged checkpoints after a step aside, so that they are not counted as checkpoints to keep."""
        if rank() == 0:
            for later in self.checkpoints():
                if later > step:
                    refuse(self.checkpoint(later))

    def _text(self, name: str, text: str) -> None:
        write_text(self.file(name), text)


def cannot_write(path: str, error: OSError) -> str:
    return f"run.dir: cannot write in {path} ({reason_of(error)}); choose another"


def _holder(path: str) -> str:
    """The process that holds the lock, if its file names one: ` (process 12 on host a)`."""
    with contextlib.suppress(OSError), open(os.path.join(path, LOCK), "rb") as file:
        if found := re.match(rb"(\d+) ([\w.-]+)\s", file.read(80)):
            return f" (process {found[1].decode()} on {found[2].decode()})"
    return ""


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flattens nested settings to `train.batch_size` -> value."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        leaves |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {prefix + key: value}
    return leaves


def problem_of(folder: str) -> str | None:
    """Why a checkpoint is damaged; None if it is sound. The same on all ranks, each of which verifies a part of the files."""
    problem = None
    try:
        verify_checkpoint(folder, rank(), world_size())
    except UserError as error:
        problem = str(error)
    return first_problem(problem)


def _step_of(line: str) -> int:
    try:
        row = parse_json(line, undefined_is_null=True)
    except ValueError:
        return 1 << 62
    step = row.get("step", 0) if isinstance(row, dict) else None
    return step if type(step) is int else 1 << 62


def environment() -> dict[str, Any]:
    """Command, machine and versions, recorded beside the metrics."""
    import torch

    names = ["dmoe", "torch", "torchrec", "fbgemm-gpu", "fbgemm-gpu-cpu", "torchx", "numpy", "pyarrow"]
    return {
        "command": sys.argv,
        "world_size": world_size(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "versions": {name: found for name in names if (found := version_of(name))},
    }
