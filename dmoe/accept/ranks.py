"""Runs jobs on the ranks of all hosts, for the conductor: its own supervisor and the others get them through a shared store."""

import pickle
import time
from collections.abc import Callable
from typing import Any

from dmoe.accept.finding import Failed
from dmoe.accept.supervisor import POLL_SECONDS, Answer, Job, Supervisor

LATE_SECONDS = 15.0
"""Additional time that the conductor waits for the answers of other hosts, after the time limit of a job."""


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
