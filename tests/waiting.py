"""Waiting for what another thread or process does, as long as a busy machine takes for it."""

import time
from collections.abc import Callable


def wait_for(what: Callable[[], object], seconds: float = 240) -> None:
    """Waits until it is so.

    Raises:
        AssertionError: it was not so in time.
    """
    ends = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < ends, f"not within {seconds:.0f} s"
        time.sleep(0.01)
