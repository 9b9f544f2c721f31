"""One run at a time in an output folder."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from dmoe.errors import UserError
from dmoe.paths import no_follow, no_links


@contextmanager
def alone(folder: str, output: str) -> Iterator[None]:
    """Keeps a second run off the same output. The lock goes with the process, however it ends.

    Args:
        folder: where the lock file lies; made where it is not there.
        output: what the message calls it.

    Raises:
        UserError: another run is writing there, or the folder holds a link.
    """
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "lock"), "w", opener=no_follow) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"--output {output}: another run is writing there; wait for it or name another folder") from None
        # What a killed run left here is continued, and the folder may have come from elsewhere.
        no_links(folder)
        yield
