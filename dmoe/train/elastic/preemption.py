"""Asynchronous all-reduce of two flags at every step: a rank received SIGTERM; every rank has finished writing its checkpoint part.

The flags of step s are sent while step s + 1 runs, and read after it, so that all ranks act on them at the same step.
"""

import signal
import threading
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist

from dmoe.checkpoint.writer import CheckpointWriter
from dmoe.distributed import world_size


class Together:
    """Tells all ranks that some rank received SIGTERM, and that all parts of a checkpoint are written.

    A context manager. Within it, SIGTERM only sets a flag, which `exchange` sends to all ranks.
    """

    def __init__(self, writer: CheckpointWriter) -> None:
        self.writer = writer
        self.asked = False
        self._pending: tuple[Any, torch.Tensor] | None = None
        self._previous: Any = None

    def exchange(self) -> bool:
        """Called by all ranks between two steps. Publishes a checkpoint when all ranks have written their parts.

        Returns:
            Whether some rank received SIGTERM; equal on all ranks.
        """
        if world_size() == 1:
            stop, finished = self.asked, self.writer.finished
        else:
            stop, finished = self._read()
            # On the CPU, so that it uses gloo also with GPUs, and waits for no kernel.
            flags = torch.tensor([int(self.asked), -self.writer.finished], device="cpu")
            self._pending = (dist.all_reduce(flags, dist.ReduceOp.MAX, async_op=True), flags)
        if self.writer.under_way and finished >= self.writer.begun:
            self.writer.finish()
        return stop

    def _read(self) -> tuple[bool, int]:
        if self._pending is None:
            return False, 0
        work, flags = self._pending
        work.wait()
        self._pending = None
        return bool(flags[0]), -int(flags[1])

    def __enter__(self) -> "Together":
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGTERM, self._ask)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGTERM, self._previous)
        if kind is None:
            self._read()

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
