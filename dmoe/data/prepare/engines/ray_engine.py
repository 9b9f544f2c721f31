"""Runs the tasks of a stage as Ray tasks, on an existing cluster or on one that is started on this machine for the run.

Data that the tasks share is put into Ray's object store once: each node holds one copy, not each worker. All nodes must see the files
under the same paths as the driver. A worker changes to the driver's working directory. Ray runs a task again if its worker dies or is
killed for memory.
"""

import logging
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from dmoe.errors import UserError, first_line

RETRIES = 8
"""How often a task is run again after its worker died. A task that Ray killed for memory is run again without a limit."""
LONGEST_FOLDER = 107 - len("/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store.1")
"""Bytes. The path of a Unix socket has at most 107 bytes."""
CLUSTER_SECONDS = 5.0
CONNECT_SECONDS = 5.0


class RayEngine:
    """Runs tasks on the cluster that this process is connected to.

    Args:
        at_a_time: tasks at a time; 0 for one for each core of the cluster, which may gain and lose nodes.
    """

    far = True

    def __init__(self, at_a_time: int) -> None:
        self.at_a_time = at_a_time
        self._cores = self._asked = 0.0

    @property
    def workers(self) -> int:
        if self.at_a_time:
            return self.at_a_time
        import ray

        if time.monotonic() - self._asked > CLUSTER_SECONDS:
            self._cores, self._asked = ray.cluster_resources().get("CPU", 0.0), time.monotonic()
        return max(int(self._cores), 1)

    def results(self, task: Callable[[Any, Any], Iterator[Any]], shared: Any, items: Iterable[Any]) -> Generator[tuple[int, Any]]:
        import ray

        remote = ray.remote(_work).options(num_cpus=1, num_returns="streaming", max_retries=RETRIES)
        kept = ray.put(shared)
        waiting: dict[Any, int] = {}
        try:
            for place, item in enumerate(items):
                waiting[remote.remote(task, os.getcwd(), kept, item)] = place
                # More tasks than cores, so that no core has to wait for its next task.
                while len(waiting) >= (self.at_a_time or 2 * self.workers):
                    yield from _finished(waiting)
            while waiting:
                yield from _finished(waiting)
        finally:
            for one in waiting:
                ray.cancel(one, force=False)


def _finished(waiting: dict[Any, int]) -> Iterator[tuple[int, Any]]:
    """The next result, or the end, of every task that is ready."""
    import ray

    ready, _ = ray.wait(list(waiting), num_returns=1)
    if len(waiting) > 1:
        ready = ray.wait(list(waiting), num_returns=len(waiting), timeout=0)[0] or ready
    for one in ready:
        try:
            result = ray.get(next(one))
        except StopIteration:
            yield waiting.pop(one), None
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, UserError | OSError):
                raise error.cause from None
            raise
        except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError, ray.exceptions.NodeDiedError) as error:
            raise UserError(
                f"--engine ray: a task's worker died {RETRIES + 1} times ({first_line(error, 150)}); give fewer --workers or more memory"
            ) from None
        else:
            yield waiting[one], result


def _work(task: Callable[[Any, Any], Iterator[Any]], folder: str, shared: Any, item: Any) -> Iterator[Any]:
    """The function that a worker runs."""
    from dmoe.processes.malloc import keep_freed_memory

    keep_freed_memory()
    try:
        os.chdir(folder)
        yield from task(shared, item)
    except FileNotFoundError as error:
        where = f"{error.filename}: not there on {socket.gethostname()}, a node of the Ray cluster"
        raise UserError(f"{where}; inputs, --work and the working directory must be on storage that all nodes see") from None


@contextmanager
def connected(at_a_time: int, address: str | None) -> Iterator[RayEngine]:
    """Joins the cluster at `address`, or starts one with `at_a_time` cores on this machine, which is stopped at the end of the run.

    Raises:
        UserError: Ray is not installed, there is no cluster at the address, or Ray does not start.
    """
    # Ray reports no usage statistics, unless the user sets this to 1.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray = import_ray()
    if address and ":" in address and "://" not in address and not answers(address):
        raise UserError(f"--ray-address {address}: nothing answers there; expected HOST:PORT of the cluster's head, or auto")
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    folder = None if address else short_folder()
    try:
        try:
            if address:
                ray.init(address=address, **quiet)
            else:
                ray.init(address="local", num_cpus=at_a_time, include_dashboard=False, _temp_dir=folder, **quiet)
        # Ray raises errors of many classes, and a plain Exception if its start takes more than 30 seconds.
        except Exception as error:
            hint = "; where the cluster asks for a token, set RAY_AUTH_MODE=token"
            where = f"--ray-address {address}: no cluster to join" if address else "--engine ray: Ray does not start"
            raise UserError(f"{where} ({first_line(error)}){hint if address else '; run the same command again'}") from None
        yield RayEngine(at_a_time if address else 0)
    finally:
        ray.shutdown()
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


def import_ray() -> Any:
    """The module ray.

    Raises:
        UserError: it is not installed.
    """
    try:
        import ray
    except ImportError:
        raise UserError("--engine ray: Ray is not installed; pip install 'dmoe[ray]'") from None
    return ray


def answers(address: str) -> bool:
    """Whether a program listens at HOST:PORT. Ray itself would keep trying for minutes."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), CONNECT_SECONDS):
            return True
    except (OSError, ValueError, OverflowError):
        return False


def short_folder() -> str:
    """A new folder for Ray's logs and sockets, with a path that is short enough for a socket."""
    where = tempfile.gettempdir()
    longest = LONGEST_FOLDER - len("/dmoe-ray-12345678")
    return tempfile.mkdtemp(prefix="dmoe-ray-", dir=where if len(where.encode()) <= longest else "/tmp")
