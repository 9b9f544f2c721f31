"""A tracker in a thread of its own, so that it can neither end a run nor slow it."""

import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from dmoe.errors import one_line
from dmoe.train.elastic.exit_codes import TRACKER_THREAD
from dmoe.train.trackers.tracker import Tracker

WAITING_CALLS = 1000
"""Calls that may wait for a slow tracker. A call holds the figures of one line of the log: a few kB."""
STUCK_SECONDS = 60.0
"""How long one call may take before the tracker is taken for dead."""


class Background:
    """Calls a tracker's methods in order, in one thread. The first error, a call that hangs, or a full queue switches the tracker
    off: one warning is given, and no further call is made.

    Args:
        name: of the tracker, for the warning.
        warn: called with the warning, at most once, from any thread.
    """

    def __init__(self, name: str, tracker: Tracker, warn: Callable[[str], None]) -> None:
        self.name, self.tracker, self.warn = name, tracker, warn
        self.off = False
        self._under_way: tuple[str, float] | None = None
        self._lock = threading.Lock()
        self._calls: queue.Queue[tuple[str, Callable[[], Any]] | None] = queue.Queue(WAITING_CALLS)
        self._thread = threading.Thread(target=self._run, daemon=True, name=f"{TRACKER_THREAD}{name}")
        self._thread.start()

    def call(self, what: str, action: Callable[[], Any]) -> None:
        """Queues a call for the thread, and returns at once.

        Args:
            what: names the call in a warning, such as `step 40`.
        """
        if self.off:
            return
        under_way = self._under_way
        if under_way is not None and time.monotonic() - under_way[1] > STUCK_SECONDS:
            self._switch_off(f"{under_way[0]}: no answer for {STUCK_SECONDS:g} s")
            return
        try:
            self._calls.put_nowait((what, action))
        except queue.Full:
            self._switch_off(f"{what}: {WAITING_CALLS:,} calls are waiting for it")

    def end(self, seconds: float) -> bool:
        """Waits up to `seconds` for the queued calls to finish. Returns whether the thread has ended."""
        try:
            self._calls.put_nowait(None)
        except queue.Full:
            self._switch_off(f"at the end: {WAITING_CALLS:,} calls are waiting for it")
        if not self.off:
            self._thread.join(seconds)
            if self._thread.is_alive():
                self._switch_off(f"{(self._under_way or ('at the end',))[0]}: not done {seconds:.0f} s after the end of the run")
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self.off and (call := self._calls.get()) is not None:
            what, action = call
            self._under_way = what, time.monotonic()
            try:
                action()
            except BaseException as error:
                # SystemExit too: whatever a foreign library does in its thread stays there.
                self._switch_off(f"{what}: {type(error).__name__}: {one_line(str(error).strip(), 300)}")
                return
            self._under_way = None

    def _switch_off(self, why: str) -> None:
        with self._lock:
            if self.off:
                return
            self.off = True
        self.warn(f"run.trackers: {self.name} is switched off, the run goes on: {why}")
