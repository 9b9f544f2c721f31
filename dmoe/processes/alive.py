"""Signs of life: what a program is at, told on stderr where that takes longer than a person waits without a doubt.

Library functions tell what they are at by `note` and `detail`; only a program, by `begin`, lets it be printed.
"""

import threading
import time
from collections.abc import Callable

from dmoe.terminal import tell

FIRST_SECONDS = 2.0
AGAIN_SECONDS = (10.0, 30.0, 60.0)
"""When a phase is told again; every 60 s after that."""
TICK_SECONDS = 0.25


class Alive:
    """Prints a line where a phase has lasted for `FIRST_SECONDS`, and again later."""

    def __init__(self, what: str) -> None:
        self.what, self.more, self.since = what, "", time.monotonic()
        self.due = FIRST_SECONDS
        self.paused = False
        self.ended = threading.Event()
        threading.Thread(target=self._run, daemon=True, name="alive").start()

    def note(self, what: str) -> None:
        if what != self.what:
            self.what, self.more, self.since, self.due = what, "", time.monotonic(), FIRST_SECONDS

    def _run(self) -> None:
        while not self.ended.wait(TICK_SECONDS):
            what, more, lasted = self.what, self.more, time.monotonic() - self.since
            if what and lasted >= self.due and not self.paused:
                self.due = next((after for after in AGAIN_SECONDS if after > lasted), lasted + AGAIN_SECONDS[-1])
                tell(f"[{lasted:.0f} s] {what}{f' ({more})' if more else ''}", event="at", what=what, detail=more, seconds=round(lasted))


_current: Alive | None = None
listener: Callable[[str, int], None] | None = None
"""Is called by every `note` with its arguments."""


def begin(what: str = "") -> None:
    """Lets this process print signs of life, until `end`.

    Args:
        what: it is at; nothing is printed where it is empty, and no `note` follows.
    """
    global _current
    end()
    _current = Alive(what)


def note(what: str, step: int = 0) -> None:
    """What this process is at from now on, such as `plans 26 tables`.

    Args:
        step: of the training.
    """
    if _current is not None:
        _current.note(what)
    if listener is not None:
        listener(what, step)


def detail(more: str) -> None:
    """How far it is with that, such as `table 12 of 26`."""
    if _current is not None:
        _current.more = more


def pause() -> None:
    """Prints nothing until `resume`: something else tells how it goes."""
    if _current is not None:
        _current.paused = True


def resume(what: str) -> None:
    """Ends a `pause`; the program is at `what` now. Where it does not print signs of life, nothing."""
    if _current is not None:
        _current.note(what)
        _current.paused = False


def end() -> None:
    global _current
    if _current is not None:
        _current.ended.set()
        _current = None
