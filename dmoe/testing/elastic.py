"""Training under the agent of torchrun, in forked processes that have torchrec already imported, with faults at chosen points.

The command line of torchrun starts a new interpreter for each rank and restart, which takes ten seconds on two cores. Its agent
(`elastic_launch`) also accepts a function; that is the only difference.
"""

import json
import multiprocessing
import os
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dmoe.testing.faults import Faults, Rows, install, note_phases

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
        faults: each `{"at": point, "rank": r, "attempt": a, "do": what, ...}`; see `dmoe.testing.faults`.
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
