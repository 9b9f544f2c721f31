"""The rank processes that stages run in. They are kept from stage to stage; if they hang, they are killed and started again.

A supervisor manages the ranks of its host, or one rank under torchrun. It uses no device, so that it can kill a rank that hangs in a kernel
or a collective. The first supervisor belongs to the conductor, and sends jobs to the others through a shared store.
"""

import contextlib
import multiprocessing
import os
import pickle
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from dmoe.accept.finding import Failed
from dmoe.accept.rank import serve

POLL_SECONDS = 0.05
LATE_SECONDS = 15.0
"""Additional time that the conductor waits for the answers of other hosts, after the time limit of a job."""
LAST_BYTES = 4000
GRACE_SECONDS = 8.0
"""Time limit for the other ranks of a pool after one has failed: most of them are waiting for it."""
GROUP_SECONDS = 1800


@dataclass(frozen=True)
class Job:
    """A function call on the ranks of a pool.

    Attributes:
        pool: number of ranks; the pool has the first ones.
        function: `module:function`.
        seconds: time limit; ranks without an answer are then killed.
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
        host_ranks: number of ranks on a host.
        on_gpu: whether each rank has a GPU. Such ranks are spawned, because a forked process cannot use CUDA after its parent did.
        store: the store that all supervisors share.
        address, port: rendezvous of the ranks.
        threads: CPU threads of a rank.
        preload: modules to import before ranks are forked.
        prepare: `module:function` that each rank calls first; tests inject faults with it.
        logs: folder for the output of the ranks.
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


class Ranks:
    """Runs functions on all ranks, for the conductor.

    Args:
        supervisor: the supervisor of the conductor; the others receive jobs through the store.

    Attributes:
        size: size of the largest pool.
        until: deadline of the present stage, on the monotonic clock.
        kept: results that several stages share.
    """

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor, self.size = supervisor, supervisor.setting.ranks
        self.until = 0.0
        self.kept: dict[str, Any] = {}
        self._number = 0

    @property
    def left(self) -> float:
        """Seconds until the deadline of the stage."""
        return max(self.until - time.monotonic(), 0.0)

    def run(self, function: Callable[..., Any], *arguments: Any, size: int | None = None) -> list[Any]:
        """Calls a function of a module on every rank of a pool; returns the results in the order of ranks.

        Raises:
            Failed: a rank raised an exception, ended, or did not answer in time; names the rank.
        """
        answers = self.ask(function, *arguments, size=size)
        bad = {rank: answer for rank, answer in answers.items() if answer.kind != "ok"}
        # Exceptions are reported first: late ranks have often only waited for the rank that failed.
        for kind in ("raised", "ended", "late"):
            for rank, answer in bad.items():
                if answer.kind == kind:
                    raise Failed(f"rank {rank} of {len(answers)} {_words(answer)}")
        return [answers[rank].value for rank in sorted(answers)]

    def ask(self, function: Callable[..., Any], *arguments: Any, size: int | None = None, apart: bool = False) -> dict[int, Answer]:
        """Like `run`, but returns rank -> answer, also for ranks that failed."""
        name = f"{function.__module__}:{function.__qualname__}"
        job = Job(size or self.size, name, arguments, max(self.left, 1.0), apart)
        self._post(job)
        answers = _run_together(self.supervisor, job, self._number)
        others = self._of_others(set(range(job.pool)) - answers.keys())
        answers |= others
        if others and not apart and any(answer.kind in ("late", "ended") for answer in answers.values()):
            # Other supervisors, whose ranks all answered, do not know that the process group is broken.
            self.drop()
        return dict(sorted(answers.items()))

    def _post(self, message: Job | str) -> None:
        """Sends a job, `drop` or `close` to the other supervisors."""
        self._number += 1
        self.supervisor.setting.store.set(f"dmoe/accept/{self._number}", pickle.dumps(message))

    def _of_others(self, missing: set[int]) -> dict[int, Answer]:
        found: dict[int, Answer] = {}
        store = self.supervisor.setting.store
        until = self.until + LATE_SECONDS
        while missing - found.keys():
            for rank in missing - found.keys():
                key = f"dmoe/accept/{self._number}/{rank}"
                if store.check([key]):
                    # Safe to unpickle: only supervisors of this program write to the store.
                    found[rank] = pickle.loads(store.get(key))
            if time.monotonic() > until:
                return found | {rank: Answer("late") for rank in missing - found.keys()}
            time.sleep(POLL_SECONDS)
        return found

    def drop(self) -> None:
        """Kills all pools, also those of the other supervisors."""
        self.supervisor.close()
        self._post("drop")

    def close(self) -> None:
        """Kills all ranks, and ends the other supervisors."""
        self.supervisor.close()
        self._post("close")
        # The store ends with this process, so waits until the others have read the message.
        until, setting = time.monotonic() + LATE_SECONDS, self.supervisor.setting
        others = [f"dmoe/accept/closed/{rank}" for rank in range(self.size) if rank not in setting.local]
        while others and time.monotonic() < until and not setting.store.check(others):
            time.sleep(POLL_SECONDS)


def _run_together(supervisor: Supervisor, job: Job, number: int) -> dict[int, Answer]:
    """Runs a job that all supervisors run. Each tells the others if one of its ranks has failed, and stops if another one has told."""
    store, bad = supervisor.setting.store, f"dmoe/accept/{number}/bad"
    answers = supervisor.run(job, lambda: bool(store.check([bad])))
    if any(answer.kind != "ok" for answer in answers.values()):
        store.set(bad, "1")
    return answers


def follow(supervisor: Supervisor) -> None:
    """Main loop of the other supervisors: runs jobs from the store until it receives `close`."""
    store, number = supervisor.setting.store, 0
    while True:
        number += 1
        while not store.check([f"dmoe/accept/{number}"]):
            time.sleep(POLL_SECONDS)
        job = pickle.loads(store.get(f"dmoe/accept/{number}"))
        if job == "drop":
            supervisor.close()
            continue
        if job == "close":
            break
        for rank, answer in _run_together(supervisor, job, number).items():
            store.set(f"dmoe/accept/{number}/{rank}", pickle.dumps(answer))
    supervisor.close()
    for rank in supervisor.setting.local:
        store.set(f"dmoe/accept/closed/{rank}", "1")


def _words(answer: Answer) -> str:
    if answer.kind == "raised":
        return f"raised {answer.value}"
    if answer.kind == "late":
        return "did not answer in time"
    code = answer.value
    return f"was ended by signal {-code}" if isinstance(code, int) and code < 0 else f"ended with exit code {code}"
