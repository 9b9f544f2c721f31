"""The watchdog: ends a run that hangs, and names the rank that hangs and what it was doing.

A thread on every rank writes a heartbeat to the store of the process group. If a rank does one thing for longer than the limit, it reads
the heartbeats of all ranks, prints which rank hangs, and ends its process. The launcher then ends the other ranks, and may restart.

A request to the store waits forever if its host cannot be reached (torch 2.13, `TCPStore::check`). A second thread, which makes no
requests, therefore ends the process if the rank makes no progress and the store does not answer.
"""

import json
import os
import threading
import time
from dataclasses import dataclass

from dmoe.json_text import format_json
from dmoe.processes import alive
from dmoe.train.elastic.fault_store import FAULT, LOST, group_store, say, say_once

TICK_SECONDS = 0.25
MARGIN_SECONDS = 5.0
"""How much longer a rank waits that gets no answer from the store: on a busy machine an answer may be late."""


@dataclass(frozen=True)
class Sign:
    """The heartbeat of a rank: a count that increases, what the rank is doing, at which step, and for how long."""

    count: int
    what: str
    step: int
    seconds: float


class Watch:
    """The watchdog of one rank.

    Args:
        program: start of its message.
        limit: seconds that a rank may take for one thing.
    """

    def __init__(self, program: str, limit: float) -> None:
        import torch.distributed as dist

        self.program, self.limit = program, limit
        self.rank, self.ranks = dist.get_rank(), dist.get_world_size()
        self.what, self.step, self.since = "starts", 0, time.monotonic()
        self.store = group_store()
        self._ended = threading.Event()
        self._every = min(5.0, limit / 8)
        self._fault_since: float | None = None
        self._first_look: tuple[float, dict[int, Sign]] | None = None
        self._answered = time.monotonic()
        if self.store is not None:
            for run in (self._run, self._run_alone):
                threading.Thread(target=run, daemon=True, name="watch").start()

    def note(self, what: str, step: int) -> None:
        self.what, self.step, self.since = what, step, time.monotonic()

    def close(self) -> None:
        self._ended.set()

    def _run(self) -> None:
        count, told = 0, -self._every
        while not self._ended.wait(TICK_SECONDS):
            now = time.monotonic()
            try:
                if now - told >= self._every:
                    count, told = count + 1, now
                    self._tell(count)
                if self.rank == 0:
                    self._tell_of_faults(now)
                if now - self.since > self.limit:
                    self._judge(now)
                else:
                    self._first_look = None
            except RuntimeError:
                # The host of the store is gone. The collectives, or the other thread, will report it.
                return

    def _run_alone(self) -> None:
        """Ends the process without a request to the store, after the limit and the time that the other ranks need to report."""
        while not self._ended.wait(TICK_SECONDS):
            now = time.monotonic()
            silent = now - self._answered
            if silent > self._every + MARGIN_SECONDS and now - self.since > self.limit + 4 * self._every + MARGIN_SECONDS:
                say(self.program, cut_off(self.rank, self.what, self.step, self.limit, silent))
                os._exit(LOST)

    def _tell(self, count: int) -> None:
        key = f"dmoe/watch/{self.rank}"
        self.store.set(key, format_json([count, self.what, self.step, time.monotonic() - self.since]))
        # `set` does not wait for an answer; `check` does.
        self.store.check([key])
        self._answered = time.monotonic()

    def _tell_of_faults(self, now: float) -> None:
        """On rank 0: prints why another rank ends, after a short delay, since rank 0 may be about to print the same failure."""
        if not self.store.check([FAULT]):
            return
        self._fault_since = self._fault_since or now
        if now - self._fault_since < 2 * TICK_SECONDS:
            return
        who, message, code = json.loads(self.store.get(FAULT))
        if who != 0 and say_once(self.store, self.program, f"rank {who}: {message}"):
            os._exit(code)
        self._ended.set()

    def _judge(self, now: float) -> None:
        """After the limit: reads all heartbeats, and again a little later, and then ends the process with a message."""
        if self._first_look is None:
            self._first_look = (now, self._signs())
        looked, before = self._first_look
        if now - looked < 3 * self._every:
            return
        say_once(self.store, self.program, explain(before, self._signs(), self.ranks, self.limit))
        os._exit(LOST)

    def _signs(self) -> dict[int, Sign]:
        keys = {rank: f"dmoe/watch/{rank}" for rank in range(self.ranks)}
        return {rank: Sign(*json.loads(self.store.get(key))) for rank, key in keys.items() if self.store.check([key])}


def explain(before: dict[int, Sign], now: dict[int, Sign], ranks: int, limit: float) -> str:
    """Which rank hangs, from two readings of all heartbeats: a rank without a new heartbeat; else one that waits for its own data; else
    the one at the earliest step."""
    silent = [rank for rank in range(ranks) if rank not in now or (rank in before and before[rank].count == now[rank].count)]
    alone = [rank for rank, sign in now.items() if sign.what.startswith(ALONE) and sign.seconds > limit / 2]
    if silent:
        rank = silent[0]
        why = f"rank {rank} gives no sign of life" + (f"; last it {now[rank].what}, step {now[rank].step:,}" if rank in now else "")
    elif alone:
        rank = alone[0]
        why = f"rank {rank} {now[rank].what} for {now[rank].seconds:.0f} s, step {now[rank].step:,}"
    else:
        rank = min(now, key=lambda rank: (now[rank].step, -now[rank].seconds))
        why = f"rank {rank} {now[rank].what} for {now[rank].seconds:.0f} s, step {now[rank].step:,}"
    waiting = sorted({f"{sign.what} (step {sign.step:,})" for other, sign in now.items() if other != rank})
    others = f"; the others wait: each {' or '.join(waiting)}" if waiting else ""
    return f"no progress for {limit:.0f} s (run.timeout_seconds): {why}{others}; look at that rank's host, then start again with --resume"


def cut_off(rank: int, what: str, step: int, limit: float, silent: float) -> str:
    """The message of a rank that gets no answer from the store."""
    keeper = os.environ.get("MASTER_ADDR", "its host")
    return (
        f"no progress for {limit:.0f} s (run.timeout_seconds): rank {rank} {what}, step {step:,}, and {keeper}, which keeps the ranks'"
        f" store, has not answered it for {silent:.0f} s; one of the two hosts is cut off: look at both, then start again with --resume"
    )


ALONE = ("waits for its next batch",)
"""Activities for which a rank does not depend on other ranks."""
_current: Watch | None = None


def begin(program: str, limit: float) -> None:
    """Starts the watchdog of this process. The process group must be initialized."""
    global _current
    _current = watch = Watch(program, limit)
    alive.listener = lambda what, step: watch.note(what, step)


def last_note() -> str:
    return f"{_current.what} (step {_current.step:,})" if _current is not None else "worked"


def end() -> None:
    global _current
    alive.listener = None
    if _current is not None:
        _current.close()
        _current = None
