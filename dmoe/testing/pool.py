"""Pools of gloo processes that run many test cases. Importing torchrec takes seconds, so there is one pool for each world size in a test
session.

Four ranks are configured as two nodes with two ranks each, so that node-aware plans use the same paths as on a cluster.
"""

import contextlib
import multiprocessing
import os
import tempfile
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import Any

CASE_SECONDS = 600


def _serve(rank: int, world_size: int, store: str, connection: Connection) -> None:
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world_size), LOCAL_WORLD_SIZE="2" if world_size == 4 else str(world_size))
    os.environ.update(LOCAL_RANK=str(rank % int(os.environ["LOCAL_WORLD_SIZE"])), OMP_NUM_THREADS="1")
    import datetime

    import torch
    import torch.distributed as dist

    from dmoe.train.output.log_filters import quiet

    quiet()
    torch.set_num_threads(1)
    timeout = datetime.timedelta(seconds=CASE_SECONDS)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world_size, timeout=timeout)
    while (job := connection.recv()) is not None:
        function, arguments = job
        try:
            connection.send((True, function(*arguments)))
        except BaseException:
            connection.send((False, traceback.format_exc()))


class Pool:
    """Processes that are the ranks of a process group."""

    def __init__(self, world_size: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.store = tempfile.mktemp()
        pairs = [context.Pipe() for _ in range(world_size)]
        self.connections = [ours for ours, _ in pairs]
        self.processes = [
            context.Process(target=_serve, args=(rank, world_size, self.store, theirs), daemon=True)
            for rank, (_, theirs) in enumerate(pairs)
        ]
        for process in self.processes:
            process.start()

    def run(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Calls a function of a module on every rank; returns the results in the order of ranks.

        Raises:
            AssertionError: a rank raised an exception; the message has its traceback.
            TimeoutError: a rank did not answer.
        """
        for connection in self.connections:
            connection.send((function, arguments))
        results: dict[int, Any] = {}
        until = time.monotonic() + CASE_SECONDS + 30
        while missing := {rank: one for rank, one in enumerate(self.connections) if rank not in results}:
            # The rank that fails first is the cause. The others may then wait for it until their collective times out.
            answered = wait(missing.values(), max(0.0, until - time.monotonic()))
            if not answered:
                self.close()
                raise TimeoutError(f"ranks {sorted(missing)} did not answer")
            for rank in (rank for rank, one in missing.items() if one in answered):
                sound, result = missing[rank].recv()
                if not sound:
                    self.close()
                    raise AssertionError(f"rank {rank}:\n{result}")
                results[rank] = result
        return [results[rank] for rank in range(len(self.connections))]

    @property
    def alive(self) -> bool:
        return all(process.is_alive() for process in self.processes)

    def close(self) -> None:
        for connection, process in zip(self.connections, self.processes, strict=True):
            if process.is_alive():
                with contextlib.suppress(OSError):
                    connection.send(None)
        for process in self.processes:
            process.join(3)
            if process.is_alive():
                process.kill()
                process.join()
        if os.path.exists(self.store):
            os.remove(self.store)
