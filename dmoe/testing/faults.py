"""Faults at chosen points of a training process, and a record of the rows that it has used."""

import contextlib
import json
import os
import signal
import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dmoe.testing.small_data import NUMBER_SCALE


def note_phases(path: Path) -> None:
    """Records the present phase of the rank in a file, so that `Faults.kill_ranks` can report it."""
    from dmoe.train.elastic import watchdog as watch

    note, file = watch.Watch.note, os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
    os.pwrite(file, b"starts".ljust(80), 0)

    def noted(self: Any, what: str, step: int) -> None:
        os.pwrite(file, f"{what} (step {step})".ljust(80).encode(), 0)
        note(self, what, step)

    watch.Watch.note = noted  # type: ignore[method-assign]


class Rows:
    """Records the rows of each training step of this rank, by the numbers of `make_data_set(..., numbered=True)`."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("w")
        self.read: deque[list[int]] = deque()

    def batch(self, batch: Any) -> None:
        self.read.append([round(x * NUMBER_SCALE) for x in batch.dense_BD[batch.weight_B > 0, 0].tolist()])

    def trained(self, step: int) -> None:
        self.file.write(json.dumps([step, self.read.popleft()]) + "\n")
        self.file.flush()


class Faults:
    """Injects faults when the process passes a point.

    `do` is one of: kill, term or stop (sends itself the signal); kill ranks (`ranks`, `after` some seconds; recorded in kills.jsonl); sleep
    (`seconds`); damage (overwrites `bytes` bytes of `path` from `offset` on); remove (`path`); limit (largest size of a file, `bytes`);
    fill (writes to `path` until the disk is full).

    `number` is the number of the passage at which the fault happens, `attempt` the attempt of torchrun.
    """

    def __init__(self, folder: Path, rank: int, attempt: int, faults: list[dict[str, Any]]) -> None:
        self.folder = folder
        self.mine = [fault for fault in faults if fault.get("rank", rank) == rank and fault.get("attempt", 0) == attempt]
        self.passed: dict[str, int] = defaultdict(int)

    def at(self, point: str, number: int | None = None) -> None:
        self.passed[point] += 1
        number = self.passed[point] if number is None else number
        for fault in self.mine:
            if fault["at"] == point and fault["number"] == number:
                self.do(fault)

    def do(self, fault: dict[str, Any]) -> None:
        match fault["do"]:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "kill ranks":
                if fault["after"]:
                    threading.Timer(fault["after"], self.kill_ranks, [fault]).start()
                else:
                    self.kill_ranks(fault)
            case "term":
                os.kill(os.getpid(), signal.SIGTERM)
            case "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
            case "sleep":
                time.sleep(fault["seconds"])
            case "remove":
                os.remove(fault["path"])
            case "damage":
                # In place, like a failing disk: replacing the file would not change one that is open.
                with open(fault["path"], "r+b") as file:
                    file.seek(fault["offset"])
                    file.write(b"\xff" * fault["bytes"])
            case "fill":
                with contextlib.suppress(OSError), open(fault["path"], "wb", buffering=0) as file:
                    while file.write(bytes(4096)):
                        pass
            case "limit":
                import resource

                # Python ignores SIGXFSZ, so that a write fails instead.
                resource.setrlimit(resource.RLIMIT_FSIZE, (fault["bytes"], fault["bytes"]))
            case other:
                raise ValueError(other)

    def kill_ranks(self, fault: dict[str, Any]) -> None:
        """Kills ranks at the same time, this process last, and records the phase of each."""
        at = {rank: (self.folder / f"at-{rank}").read_text().strip() for rank in fault["ranks"]}
        with (self.folder / "kills.jsonl").open("a") as file:
            file.write(json.dumps({**fault, "was": at}) + "\n")
        for pid in sorted((int((self.folder / f"pid-{rank}").read_text()) for rank in fault["ranks"]), key=lambda pid: pid == os.getpid()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def install(rows: Rows, faults: Faults) -> None:
    """Patches dmoe so that it records rows and passes the points of faults.

    Points: `step` (after a step), `batch` (a training batch was read), `write` and `half` (before and within the write of a checkpoint
    file), `evaluate` (after a batch). In online runs also: `ids` (before a vocabulary is written), `reset` (after rows were initialized),
    `ledger` (after a line), `old` (before old windows are removed), `version` (before a file of a version is written), `pointer` (before it
    is moved).
    """
    from dmoe.checkpoint import index, save
    from dmoe.data.dataset.reading.reader import Reader
    from dmoe.metrics.evaluation import Evaluation
    from dmoe.train.output import log_window as window

    add, batch, write, update = window.Window.add, Reader._batch, index.write_atomic, Evaluation.update
    done = iter(range(1, 1 << 30))

    def noted_batch(self: Any, *arguments: Any) -> Any:
        made = batch(self, *arguments)
        if self.shards[0].path.startswith("train"):
            rows.batch(made)
            faults.at("batch")
        return made

    def noted_add(self: Any, losses: Any) -> None:
        add(self, losses)
        rows.trained(self.since + self.steps)
        faults.at("step", next(done))

    @contextlib.contextmanager
    def noted_write(path: str) -> Iterator[Any]:
        faults.at("write")
        with write(path) as file:
            file.write(b"half")
            faults.at("half")
            file.seek(0)
            file.truncate()
            yield file

    def noted_update(self: Any, *arguments: Any) -> None:
        update(self, *arguments)
        faults.at("evaluate")

    def point(name: str, function: Any, after: bool) -> Any:
        def noted(*arguments: Any) -> Any:
            if not after:
                faults.at(name)
            made = function(*arguments)
            if after:
                faults.at(name)
            return made

        return noted

    from dmoe.online import loop, stages, versions
    from dmoe.online.ledger import Ledger
    from dmoe.online.windows import prepared

    for owner, name, noted in (
        (prepared, "save_ids", point("ids", prepared.save_ids, after=False)),
        (stages, "initialize_rows", point("reset", stages.initialize_rows, after=True)),
        (Ledger, "add", point("ledger", Ledger.add, after=True)),
        (versions, "write_atomic", point("version", versions.write_atomic, after=False)),
        (versions.Versions, "point_to", point("pointer", versions.Versions.point_to, after=False)),
        (loop, "remove_old", point("old", loop.remove_old, after=False)),
        (Reader, "_batch", noted_batch),
        (window.Window, "add", noted_add),
        (Evaluation, "update", noted_update),
        (index, "write_atomic", noted_write),
        (save, "write_atomic", noted_write),
    ):
        setattr(owner, name, noted)
