"""The rank processes of one host, or one of them under torchrun. They are kept from job to job; if they hang, they are killed and started
again.

A supervisor uses no device, so that it can kill a rank that hangs in a kernel or a collective.
"""

import contextlib
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from dmoe.accept.rank import serve

POLL_SECONDS = 0.05
LAST_BYTES = 4000
GRACE_SECONDS = 8.0
"""Time limit for the other ranks of a pool after one has failed: most of them are waiting for it."""
GROUP_SECONDS = 1800


@dataclass(frozen=True)
class Job:
    """A call of a function (`module:function`) on the first ranks, a pool of this size. Ranks without an answer in time are killed.

    Attributes:
        apart: whether to use new processes that end with the job and join no process group at the start, for programs that join one.
    """

    pool: int
    function: str
    arguments: tuple[Any, ...]
    seconds: float
    apart: bool = False


@dataclass(frozen=True)
class Answer:
    """The answer of a rank.

    Attributes:
        kind: `ok`, `raised`, `ended` or `late`.
        value: the returned value, the text of the exception, or the exit code.
        said: the end of its output, if the job was `apart`.
    """

    kind: str
    value: Any = None
    said: str = ""


@dataclass
class Setting:
    """Settings of a supervisor.

    Attributes:
        ranks: size of the largest pool.
        local: global numbers of the ranks of this supervisor.
        on_gpu: whether each rank has a GPU. Such ranks are spawned, because a forked process cannot use CUDA after its parent did.
        store: the store that all supervisors share.
        address, port: rendezvous of the ranks.
        threads: CPU threads of a rank.
        preload: modules to import before ranks are forked.
        prepare: `module:function` that each rank calls first; tests inject faults with it.
    """

    ranks: int
    local: Sequence[int]
    host_ranks: int
    on_gpu: bool
    store: Any
    address: str
    port: int
    threads: int = 1
    preload: Sequence[str] = ()
    prepare: str = ""
    logs: str = field(default_factory=lambda: tempfile.mkdtemp(prefix="dmoe-accept-logs-"))


@dataclass
class Child:
    """A rank process. `begun`: it has reported that it is ready for jobs."""

    process: Any
    connection: Any
    begun: bool = False


class Supervisor:
    """Runs jobs on the ranks of this supervisor."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.context: Any = multiprocessing.get_context("spawn" if setting.on_gpu else "forkserver")
        if not setting.on_gpu:
            self.context.set_forkserver_preload(list(setting.preload))
        self.pools: dict[int, dict[int, Child]] = {}

    def run(self, job: Job, stopped: Callable[[], bool]) -> dict[int, Answer]:
        """Runs a job; returns rank -> answer for the ranks of this supervisor. If a rank is late or has ended, its pool is killed.

        Args:
            stopped: whether a rank of another supervisor has failed, so that the ranks here may wait for it in vain.
        """
        mine = [rank for rank in self.setting.local if rank < job.pool]
        if not mine:
            return {}
        until = time.monotonic() + job.seconds
        if job.apart or job.pool not in self.pools:
            children = {rank: self._start(rank, job) for rank in mine}
            if not job.apart:
                self.pools[job.pool] = children
        else:
            children = self.pools[job.pool]
        new = {rank: child for rank, child in children.items() if not child.begun}
        answers = {rank: answer for rank, answer in self._answers(new, until, job, stopped).items() if answer.kind != "ok"}
        if not answers:
            for child in children.values():
                child.begun = True
                with contextlib.suppress(OSError):
                    child.connection.send((job.function, job.arguments))
            answers = self._answers(children, until, job, stopped)
        if job.apart:
            self._end(children)
            answers = {rank: Answer(one.kind, one.value, self._said(rank)) for rank, one in answers.items()}
        elif len(answers) < len(mine) or any(answer.kind in ("late", "ended") for answer in answers.values()):
            self.drop(job.pool)
        return answers

    def _answers(self, children: Mapping[int, Child], until: float, job: Job, stopped: Callable[[], bool]) -> dict[int, Answer]:
        waited = {child.connection: rank for rank, child in children.items()}
        answers: dict[int, Answer] = {}
        while waited:
            for connection in wait(list(waited), POLL_SECONDS):
                rank = waited.pop(connection)
                answers[rank] = self._answer(children[rank])
                if answers[rank].kind != "ok" and not job.apart:
                    until = min(until, time.monotonic() + GRACE_SECONDS)
            if stopped() and not job.apart:
                until = min(until, time.monotonic() + GRACE_SECONDS)
            if time.monotonic() > until:
                return answers | dict.fromkeys(waited.values(), Answer("late"))
        return answers

    def _answer(self, child: Child) -> Answer:
        try:
            kind, value = child.connection.recv()
        except (EOFError, OSError):
            child.process.join(GRACE_SECONDS)
            return Answer("ended", child.process.exitcode)
        return Answer(kind, value)

    def drop(self, pool: int) -> None:
        """Kills the processes of a pool; the next job starts new ones."""
        self._end(self.pools.pop(pool, {}))

    def close(self) -> None:
        for pool in list(self.pools):
            self.drop(pool)

    def _start(self, rank: int, job: Job) -> Child:
        setting = self.setting
        ours, theirs = self.context.Pipe()
        environment = {"OMP_NUM_THREADS": str(setting.threads), "LOCAL_WORLD_SIZE": str(min(setting.host_ranks, job.pool))}
        if job.pool > 1:
            environment |= {"RANK": str(rank), "WORLD_SIZE": str(job.pool), "LOCAL_RANK": str(rank % setting.host_ranks)}
            environment |= {"MASTER_ADDR": setting.address, "MASTER_PORT": str(setting.port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
        # The supervisor kills a rank that hangs, so the time-out of the process group must be longer.
        arguments = (environment, not job.apart, setting.prepare, self._log(rank, job.apart), GROUP_SECONDS, theirs)
        process = self.context.Process(target=_serve_without, args=arguments, daemon=True)
        process.start()
        theirs.close()
        return Child(process, ours)

    def _end(self, children: Mapping[int, Child]) -> None:
        for child in children.values():
            child.connection.close()
            child.process.kill()
        for child in children.values():
            child.process.join()

    def _log(self, rank: int, apart: bool) -> str:
        return str(Path(self.setting.logs, f"{'apart' if apart else 'rank'}-{rank}.log"))

    def _said(self, rank: int) -> str:
        """The end of a rank's output."""
        path = Path(self._log(rank, True))
        text = path.read_bytes()[-LAST_BYTES:].decode(errors="replace") if path.exists() else ""
        path.unlink(missing_ok=True)
        return text


def _serve_without(environment: Mapping[str, str], *arguments: Any) -> None:
    """Calls `serve` without the environment variables that torchrun has set for the supervisor."""
    for name in list(os.environ):
        if name.startswith(("TORCHELASTIC_", "GROUP_", "ROLE_")) or name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
            del os.environ[name]
    serve(environment, *arguments)
