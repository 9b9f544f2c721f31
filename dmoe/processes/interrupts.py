"""Ctrl-C at any moment ends a program at once, in one line and with exit code 130.

Python raises an exception in the main thread, which two things keep from the program's end: an import, in which libraries catch what they
do not expect (and fail later, far from the cause), and a wait inside C++ code, such as for ranks that do not join.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from dmoe.terminal import line_of

INTERRUPTED = 130
STUCK_SECONDS = 3.0
"""How long the main thread may take to notice Ctrl-C."""
ARRIVED = threading.Event()
"""Set when Ctrl-C reaches this process, before the main thread notices it."""


class Interrupts:
    """What a program does on Ctrl-C; `interruptible` makes it."""

    def __init__(self, program: str) -> None:
        # Ctrl-C reaches every rank of a launch: one speaks for all.
        self.said = f"{program}: interrupted" if os.environ.get("RANK", "0") == "0" else ""
        self.noticed = threading.Event()

    def line(self) -> str:
        return line_of(self.said, "error", "error", code=INTERRUPTED) if self.said else ""

    def tell(self) -> None:
        sys.stderr.write(self.line())
        sys.stderr.flush()
        self.said = ""

    def end(self) -> None:
        """Ends the process, from a signal handler or another thread: Python's own streams may be in use."""
        os.write(2, self.line().encode())
        os._exit(INTERRUPTED)

    def handle(self, number: int, frame: FrameType | None) -> None:
        # A second Ctrl-C comes from a person who waits, or from torchrun, which passes on what the terminal has sent already.
        again = self.noticed.is_set()
        self.noticed.set()
        if again or _imports(frame):
            self.end()
        raise KeyboardInterrupt

    def watch(self, reading: int) -> None:
        """Ends the process where the main thread does not notice. The interpreter writes a byte for each signal, whatever is running."""
        while number := os.read(reading, 1):
            if number[0] == signal.SIGINT and signal.getsignal(signal.SIGINT) == self.handle:
                ARRIVED.set()
                if not self.noticed.wait(STUCK_SECONDS):
                    self.end()
        os.close(reading)


@contextmanager
def interruptible(program: str) -> Iterator[Interrupts]:
    """Inside, Ctrl-C is noticed at any moment; not in another than the main thread, nor where it is ignored (a shell's background job)."""
    interrupts, before = Interrupts(program), signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before is signal.SIG_IGN:
        yield interrupts
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.signal(signal.SIGINT, interrupts.handle)
    fd_before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=interrupts.watch, args=(reading,), daemon=True, name="interrupts").start()
    try:
        yield interrupts
    finally:
        # One who presses it again while an interrupted program ends must see no traceback of the interpreter's own end.
        if not interrupts.noticed.is_set():
            signal.signal(signal.SIGINT, before)
        signal.set_wakeup_fd(fd_before)
        os.close(writing)


def _imports(frame: FrameType | None) -> bool:
    while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return frame is not None
