"""Work of rank 0 alone that may take as long as it likes: the other ranks, and the watch, see that it goes on."""

import threading
from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from dmoe.alive import note
from dmoe.distributed import broadcast_object, rank, world_size
from dmoe.errors import UserError

TICK_SECONDS = 0.1
_T = TypeVar("_T")


def meanwhile(action: Callable[[], _T], what: str, between: Callable[[], None]) -> _T:
    """Calls it in a thread of rank 0, and gives its result to all ranks; every rank has to call this.

    Args:
        what: the rank is at, for the watch.
        between: called on every rank several times a second, as often on each; what it raises ends the waiting.

    Raises:
        UserError: on every rank, where the action raises it.
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
        # A bug: the other ranks learn of it by this one's end.
        raise error
    result, problem = broadcast_object((result, None if error is None else str(error)))
    if problem is not None:
        raise UserError(problem)
    value: _T = result
    return value


def _agreed(done: bool) -> bool:
    """Rank 0's word, on every rank."""
    if world_size() == 1:
        return done
    flag = torch.tensor([int(done)], device="cpu")
    dist.broadcast(flag, src=0)
    return bool(flag[0])
