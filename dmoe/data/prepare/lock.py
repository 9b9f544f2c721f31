"""One run at a time in an output folder."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from dmoe.errors import UserError


@contextmanager
def alone(folder: str, output: str) -> Iterator[None]:
    """Keeps a second run off the same output. The lock goes with the process, however it ends.

    Args:
        folder: where the lock file lies; made where it is not there.
        output: what the message calls it.

    Raises:
        UserError: another run is writing there.
    """
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "lock"), "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"--output {output}: another run is writing there; wait for it or name another folder") from None
        yield
