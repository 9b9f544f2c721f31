"""Watches that the ranks go on, and ends a run that hangs with the name of the rank that does not, and what it was at.

A thread of every rank leaves a sign of life in the group's store. Where a rank is at one thing for longer than the limit, it looks at
the others' signs, says who is behind, and ends its process; the launcher then ends the others and, with restarts, begins anew.

A question to the store waits for ever where the network has lost the host that keeps it (torch 2.13, `TCPStore::check`), so a second
thread, which asks nobody, ends the process where neither the rank goes on nor the store answers.
"""

import json
import os
import threading
import time
from dataclasses import dataclass

from dmoe import alive
from dmoe.json_text import format_json
from dmoe.train.elastic.fault_store import FAULT, LOST, SAID, group_store, say

TICK_SECONDS = 0.25
MARGIN_SECONDS = 5.0
"""How much longer than those who can ask a rank waits that cannot: on a busy machine an answer is late."""


@dataclass(frozen=True)
class Sign:
    """A rank's sign of life: a count that rises while it lives, what it is at, of which step, for how long."""

    count: int
    what: str
    step: int
    seconds: float


class Watch:
    """One rank's watch.

    Args:
        program: begins the message.
        limit: seconds that a rank may be at one thing.
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
                # The store went away with the host that kept it; the collectives will say so, or the other thread.
                return

    def _run_alone(self) -> None:
        """Past the limit, and the time in which the others would have said who is behind: ends the process without asking."""
        while not self._ended.wait(TICK_SECONDS):
            now = time.monotonic()
            silent = now - self._answered
            if silent > self._every + MARGIN_SECONDS and now - self.since > self.limit + 4 * self._every + MARGIN_SECONDS:
                say(self.program, cut_off(self.rank, self.what, self.step, self.limit, silent))
                os._exit(LOST)

    def _tell(self, count: int) -> None:
        key = f"dmoe/watch/{self.rank}"
        self.store.set(key, format_json([count, self.what, self.step, time.monotonic() - self.since]))
        # Setting waits for no answer.
        self.store.check([key])
        self._answered = time.monotonic()

    def _tell_of_faults(self, now: float) -> None:
        """On rank 0: says what another rank ends of. A moment later, since rank 0 may be about to say the same of itself."""
        if not self.store.check([FAULT]):
            return
        self._fault_since = self._fault_since or now
        if now - self._fault_since < 2 * TICK_SECONDS:
            return
        who, message, code = json.loads(self.store.get(FAULT))
        if who != 0 and self.store.add(f"{SAID}/count", 1) == 1:
            say(self.program, f"rank {who}: {message}")
            self.store.set(SAID, "1")
            os._exit(code)
        self._ended.set()

    def _judge(self, now: float) -> None:
        """Past the limit: looks at all signs, and a little later again, still giving its own; then ends the process."""
        if self._first_look is None:
            self._first_look = (now, self._signs())
        looked, before = self._first_look
        if now - looked < 3 * self._every:
            return
        message = explain(before, self._signs(), self.ranks, self.limit)
        if self.store.add(f"{SAID}/count", 1) == 1:
            say(self.program, message)
            self.store.set(SAID, "1")
        os._exit(LOST)

    def _signs(self) -> dict[int, Sign]:
        keys = {rank: f"dmoe/watch/{rank}" for rank in range(self.ranks)}
        return {rank: Sign(*json.loads(self.store.get(key))) for rank, key in keys.items() if self.store.check([key])}


def explain(before: dict[int, Sign], now: dict[int, Sign], ranks: int, limit: float) -> str:
    """Who hangs, from two looks at all ranks' signs: a rank without a new one, else one at work of its own, else the one that is behind."""
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
    """What a rank says of itself where it cannot ask."""
    keeper = os.environ.get("MASTER_ADDR", "its host")
    return (
        f"no progress for {limit:.0f} s (run.timeout_seconds): rank {rank} {what}, step {step:,}, and {keeper}, which keeps the ranks'"
        f" store, has not answered it for {silent:.0f} s; one of the two hosts is cut off: look at both, then start again with --resume"
    )


ALONE = ("waits for its next batch",)
"""What a rank does without the others."""
_current: Watch | None = None


def begin(program: str, limit: float) -> None:
    """Begins this process's watch; the group must be joined."""
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
