"""A process that ends with the one that started it: an orphan would go on writing where the next run begins."""

import contextlib
import os
import threading
import time

from dmoe.processes.interrupts import ARRIVED, STUCK_SECONDS
from dmoe.terminal import tell

ORPHAN_SECONDS = 0.2


def end_with(parent: int, code: int, line: str = "") -> None:
    """Watches, in a thread, that this process is still `parent`'s child; else it ends with an exit code. A killed parent tells nobody.

    Args:
        line: what it says then.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(ORPHAN_SECONDS)
        # Ctrl-C reaches the parent, too. The parent may end before the main thread here notices Ctrl-C, which then ends this process.
        if ARRIVED.wait(ORPHAN_SECONDS):
            time.sleep(2 * STUCK_SECONDS)
        # What it would be said to may have ended with the parent.
        with contextlib.suppress(OSError, ValueError):
            if line:
                tell(line, "error", "error", code=code)
        os._exit(code)

    threading.Thread(target=watch, daemon=True, name="orphan").start()
