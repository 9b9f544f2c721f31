"""Training under the agent of torchrun, in forked processes that have torchrec already imported, with faults at chosen points.

The command line of torchrun starts a new interpreter for each rank and restart, which takes ten seconds on two cores. Its agent
(`elastic_launch`) also accepts a function; that is the only difference.
"""

import contextlib
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dmoe.testing.small_data import NUMBER_SCALE

PRELOAD = ["torchrec", "torchrec.distributed.train_pipeline", "dmoe.train.command", "dmoe.online.loop", "dmoe.testing.elastic"]


@dataclass
class Outcome:
    """The result of a launch: exit codes of the ranks that failed last (empty if the job succeeded), and the output of all ranks."""

    codes: dict[int, int]
    said: str
    seconds: float

    @property
    def succeeded(self) -> bool:
        return not self.codes


def launch(
    folder: Path,
    ranks: int,
    arguments: list[str],
    faults: list[dict[str, Any]] | None = None,
    restarts: int = 0,
    number: int = 0,
    command: str = "train",
) -> Outcome:
    """Runs `python -m dmoe.train ARGUMENTS` on a number of ranks until it ends.

    Args:
        folder: folder for logs, pids and the numbers of the trained rows.
        faults: each `{"at": point, "rank": r, "attempt": a, "do": what, ...}`; see `Faults`.
        restarts: like --max-restarts of torchrun.
        number: number of this launch in the folder, to distinguish the rows of several launches.
        command: command of dmoe, `train` or `online`.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    from dmoe.train.output.log_filters import quiet

    quiet()
    os.environ["OMP_NUM_THREADS"] = "1"
    multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOAD)
    logs = folder / f"logs-{number}"
    logs.mkdir(parents=True, exist_ok=True)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=ranks,
        run_id=f"{folder.name}-{number}-{time.monotonic_ns()}",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=restarts,
        monitor_interval=0.05,
        start_method="forkserver",
        logs_specs=DefaultLogsSpecs(log_dir=str(logs), redirects=Std.ALL),
        shutdown_timeout=10,
        local_addr="127.0.0.1",
    )
    began, codes = time.monotonic(), {}
    try:
        elastic_launch(config, train_rank)(str(folder), number, arguments, faults or [], command)
    except ChildFailedError as error:
        codes = {rank: failure.exitcode for rank, failure in error.failures.items()}
    said = "".join(path.read_text(errors="replace") for path in sorted(logs.rglob("std*.log"), key=lambda path: path.stat().st_mtime))
    return Outcome(codes, said, time.monotonic() - began)


def train_rank(folder: str, number: int, arguments: list[str], faults: list[dict[str, Any]], command: str) -> None:
    """Main function of a rank process."""
    import torch

    from dmoe.cli.main import main

    torch.set_num_threads(1)
    rank, attempt = int(os.environ["RANK"]), int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    (Path(folder) / f"pid-{rank}").write_text(str(os.getpid()))
    note_phases(Path(folder) / f"at-{rank}")
    mine = Faults(Path(folder), rank, attempt, faults)
    install(Rows(Path(folder) / f"rows-{number:03d}-{attempt:03d}-{rank}.jsonl"), mine)
    mine.at("start")
    if code := main(arguments, program=f"dmoe.{command}", path=[command]):
        sys.exit(code)


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
        (versions.PublishedVersions, "point_to", point("pointer", versions.PublishedVersions.point_to, after=False)),
        (loop, "remove_old", point("old", loop.remove_old, after=False)),
        (Reader, "_batch", noted_batch),
        (window.Window, "add", noted_add),
        (Evaluation, "update", noted_update),
        (index, "write_atomic", noted_write),
        (save, "write_atomic", noted_write),
    ):
        setattr(owner, name, noted)


def used_rows(folder: Path) -> dict[int, list[int]]:
    """Step -> the rows that have influenced the final weights in this step, which are those of the last attempt that made it."""
    attempts: dict[tuple[str, str], dict[int, list[int]]] = {}
    for path in sorted(folder.glob("rows-*.jsonl")):
        _, number, attempt, _ = path.stem.split("-")
        steps = attempts.setdefault((number, attempt), defaultdict(list))
        for line in path.read_text().splitlines():
            step, rows = json.loads(line)
            steps[step] += rows
    used: dict[int, list[int]] = {}
    for _, steps in sorted(attempts.items()):
        if steps:
            # Drops the steps of earlier attempts after the checkpoint from which this attempt resumed.
            used = {step: rows for step, rows in used.items() if step < min(steps)} | steps
    return used
