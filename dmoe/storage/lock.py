"""One writer at a time in a folder, by a lock that the kernel takes back however the process ends."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from dmoe.errors import UserError
from dmoe.storage.paths import no_follow, no_links

FILE = "lock"
POLL_SECONDS = 0.1


def take(folder: str, seconds: float = 0.0, shared: bool = False) -> int:
    """Locks `folder/lock`.

    Args:
        folder: local; made where it is not there.
        seconds: how long to wait for another process to end.
        shared: beside others that share it.

    Returns:
        A descriptor, which holds the lock until it is closed or the process ends.

    Raises:
        BlockingIOError: another process holds it.
        OSError: the folder cannot be written.
    """
    os.makedirs(folder, exist_ok=True)
    until = time.monotonic() + seconds
    descriptor = no_follow(os.path.join(folder, FILE), os.O_RDWR | os.O_CREAT)
    while True:
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            if time.monotonic() >= until:
                os.close(descriptor)
                raise
            time.sleep(POLL_SECONDS)


def share(descriptor: int) -> None:
    """Lets others share a lock that `take` gave.

    Raises:
        BlockingIOError: another process took it in between.
    """
    fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)


@contextmanager
def alone(folder: str, output: str) -> Iterator[None]:
    """Keeps a second run off the same output.

    Args:
        folder: where the lock file lies; made where it is not there.
        output: what the message calls it.

    Raises:
        UserError: another run is writing there, or the folder holds a link.
    """
    try:
        descriptor = take(folder)
    except BlockingIOError:
        raise UserError(f"--output {output}: another run is writing there; wait for it or name another folder") from None
    try:
        # What a killed run left here is continued, and the folder may have come from elsewhere.
        no_links(folder)
        yield
    finally:
        os.close(descriptor)
