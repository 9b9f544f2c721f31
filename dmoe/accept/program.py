"""Runs `dmoe accept`, from its options to its findings. Without a launcher, it starts its own ranks; under torchrun, each process
supervises one rank."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dmoe.accept.conductor import MINUTES, Job, Stage, about, chosen, conduct
from dmoe.accept.finding import Finding
from dmoe.accept.ranks import Ranks, follow
from dmoe.accept.supervisor import Setting, Supervisor
from dmoe.errors import UserError
from dmoe.version import __version__

STORE_SECONDS = 900
TORCHREC = ("dmoe.train.session", "dmoe.train.command", "dmoe.testing.small_run")
ALONE_ON_CPU = 2
"""Number of ranks without a launcher and without GPUs."""


@dataclass(frozen=True)
class Options:
    """Options of `dmoe accept`.

    Attributes:
        level: `dense`, `quick` or `full`.
        only: names of stages to run; empty for all of the level.
        minutes: time limit for all stages; that of the level if None.
        ranks: number of ranks to start; one for each GPU, or two on a CPU, if None.
        folder: folder for runs and data of the stages, on a disk that all hosts share; a temporary one if empty.
        prepare: `module:function` that every rank calls first.
    """

    level: str = "quick"
    only: Sequence[str] = ()
    minutes: float | None = None
    ranks: int | None = None
    folder: str = ""
    prepare: str = ""


def accept(
    options: Options, stages: Sequence[Stage], told: Callable[[Finding], None] = lambda _: None
) -> tuple[list[Finding], dict[str, Any]] | None:
    """Runs the stages of a level.

    Returns:
        the findings and the description of the machine; None on other supervisors than the first.

    Raises:
        UserError: an option is invalid.
    """
    some = chosen(stages, options.level, options.only)
    if options.ranks is not None and not 1 <= options.ranks <= 4096:
        raise UserError(f"--ranks {options.ranks}: expected 1 to 4096")
    if options.minutes is not None and not 0 < options.minutes <= 1440:
        raise UserError(f"--minutes {options.minutes:g}: expected more than 0, and at most a day of 1440")
    with contextlib.ExitStack() as held:
        setting = _launched(options) if "RANK" in os.environ else _alone(options)
        held.callback(shutil.rmtree, setting.logs, ignore_errors=True)
        supervisor = Supervisor(setting)
        if 0 not in setting.local:
            follow(supervisor)
            return None
        ranks = Ranks(supervisor)
        held.callback(ranks.close)
        hosts = -(-setting.ranks // setting.host_ranks)
        folder = held.enter_context(_folder(options.folder, hosts))
        job = Job(ranks, options.level, folder, hosts, setting.on_gpu)
        findings = conduct(some, job, options.minutes or MINUTES[options.level], told)
        return findings, about(ranks.kept.get("machine", {}), job, __version__)


@contextlib.contextmanager
def _folder(given: str, hosts: int) -> Iterator[str]:
    """A temporary folder for this acceptance, below `given` if it is not empty; empty if several hosts share no known folder."""
    if not given and hosts > 1:
        yield ""
        return
    if given:
        Path(given).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="dmoe-accept-", dir=given or None, ignore_cleanup_errors=True) as folder:
        yield folder


def _alone(options: Options) -> Setting:
    import torch
    from torch.distributed import TCPStore

    # Must not initialize CUDA in this process: device_count() uses NVML.
    gpus = torch.cuda.device_count()
    if gpus and (options.ranks or 0) > gpus:
        raise UserError(f"--ranks {options.ranks}: this host has {gpus} GPUs, and a rank takes one")
    count = options.ranks or gpus or ALONE_ON_CPU
    store = TCPStore("127.0.0.1", 0, None, True, wait_for_workers=False)
    return _setting(options, count, range(count), count, gpus > 0, store, "127.0.0.1", store.port)


def _launched(options: Options) -> Setting:
    import datetime

    import torch
    import torch.distributed as dist

    if options.ranks is not None:
        raise UserError("--ranks: under torchrun its own number of processes is the number of ranks; leave --ranks out")
    if "TORCHELASTIC_RUN_ID" in os.environ:
        from dmoe.processes.orphans import end_with

        end_with(os.getppid(), 1)
    store, rank, ranks = next(dist.rendezvous("env://", timeout=datetime.timedelta(seconds=STORE_SECONDS)))
    host_ranks = int(os.environ.get("LOCAL_WORLD_SIZE", ranks))
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return _setting(options, ranks, [rank], host_ranks, torch.cuda.device_count() > 0, store, address, port)


def _setting(
    options: Options, ranks: int, local: Sequence[int], host_ranks: int, on_gpu: bool, store: Any, address: str, port: int
) -> Setting:
    threads = max((os.cpu_count() or 1) // host_ranks, 1)
    preload = ["torch", *(TORCHREC if options.level != "dense" else ("dmoe.accept.stages.dense",))]
    return Setting(ranks, local, host_ranks, on_gpu, store, address, port, threads, preload, options.prepare)
