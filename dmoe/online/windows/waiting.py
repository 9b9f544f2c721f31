"""Runs long work on rank 0 only, while the other ranks and the watchdog see that the job is alive."""

import threading
from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from dmoe.distributed import broadcast_object, rank, world_size
from dmoe.errors import UserError
from dmoe.processes.alive import note

TICK_SECONDS = 0.1
_T = TypeVar("_T")


def meanwhile(action: Callable[[], _T], what: str, between: Callable[[], None]) -> _T:
    """Calls `action` in a thread of rank 0, and returns its result on all ranks. Every rank must call this function.

    Args:
        what: description of the work, for the watchdog.
        between: called on every rank several times a second, the same number of times on each; an exception in it ends the waiting.

    Raises:
        UserError: on every rank, if the action raises it.
    """
    box: list[Any] = []

    def run() -> None:
        try:
            box.append((action(), None))
        except BaseException as error:
            box.append((None, error))

    thread = threading.Thread(target=run, daemon=True, name="meanwhile") if rank() == 0 else None
    if thread is not None:
        thread.start()
    while True:
        note(what)
        between()
        if thread is not None:
            thread.join(TICK_SECONDS)
        if _agreed(thread is not None and not thread.is_alive()):
            break
    result, error = box[0] if box else (None, None)
    if error is not None and not isinstance(error, UserError):
        # A bug: only rank 0 raises it, and the other ranks end because rank 0 ends.
        raise error
    result, problem = broadcast_object((result, None if error is None else str(error)))
    if problem is not None:
        raise UserError(problem)
    value: _T = result
    return value


def _agreed(done: bool) -> bool:
    """Broadcasts `done` of rank 0 to every rank."""
    if world_size() == 1:
        return done
    flag = torch.tensor([int(done)], device="cpu")
    dist.broadcast(flag, src=0)
    return bool(flag[0])
