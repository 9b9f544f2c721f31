"""Runs the tasks of a stage in threads of this process, or in Ray workers (dmoe.data.prepare.engines.ray_engine).

A task is a generator function of (data that all tasks of the stage share, one item). If a worker dies, its task is run again, perhaps
while the first run still goes on. A task must therefore write files atomically (`dmoe.storage.paths.write_atomic`), and give the same files
and results each time.
"""

import os
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from typing import Any, Literal, Protocol, TypeVar

Shared = TypeVar("Shared")
Item = TypeVar("Item")
Result = TypeVar("Result")
Task = Callable[[Shared, Item], Iterator[Result]]


class Engine(Protocol):
    """Runs tasks. `far` is true if tasks run in other processes, to which shared data and items are copied."""

    far: bool

    @property
    def workers(self) -> int:
        """Number of tasks that run at a time."""

    def results(self, task: Callable[[Any, Any], Iterator[Any]], shared: Any, items: Iterable[Any]) -> Generator[tuple[int, Any]]:
        """Yields (index of the item, result) as results arrive, and (index, None) after the last result of an item.

        The results of one item come in order. Items are taken only when a task can start. If the generator is closed, no further task
        starts.
        """


class Threads:
    """Runs tasks in threads of this process. At most `workers` + 2 items are held at a time."""

    far = False

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def results(self, task: Callable[[Any, Any], Iterator[Any]], shared: Any, items: Iterable[Any]) -> Generator[tuple[int, Any]]:
        waiting: dict[Future[list[Any]], int] = {}

        def finished() -> Iterator[tuple[int, Any]]:
            # In the order of the items, so that the error of the first item is reported.
            for future in sorted(wait(waiting, return_when=FIRST_COMPLETED).done, key=waiting.__getitem__):
                place = waiting.pop(future)
                yield from ((place, result) for result in [*future.result(), None])

        with ThreadPoolExecutor(self.workers) as pool:
            try:
                for place, item in enumerate(items):
                    waiting[pool.submit(_all, task, shared, item)] = place
                    while len(waiting) > self.workers + 1:
                        yield from finished()
                while waiting:
                    yield from finished()
            finally:
                for future in waiting:
                    future.cancel()


def _all(task: Callable[[Any, Any], Iterator[Any]], shared: Any, item: Any) -> list[Any]:
    return list(task(shared, item))


@contextmanager
def open_engine(name: Literal["local", "ray"], workers: int, ray_address: str | None) -> Iterator[Engine]:
    """Opens an engine.

    Args:
        workers: tasks at a time; 0 for one for each core of this machine, or of the cluster at `ray_address`.
    """
    here = workers or os.cpu_count() or 1
    if name == "local":
        yield Threads(here)
        return
    from dmoe.data.prepare.engines.ray_engine import connected

    with connected(workers if ray_address else here, ray_address) as engine:
        yield engine


def run_tasks(
    engine: Engine, task: Task[Shared, Item, Result], shared: Shared, items: Iterable[Item], heard: Callable[[Result], None]
) -> Generator[Result]:
    """Yields the results of all tasks in the order of the items.

    Args:
        heard: called with every result as soon as it arrives, in any order; for the progress line.
    """
    held: dict[int, list[Result | None]] = {}
    first = 0
    with closing(engine.results(task, shared, items)) as coming:
        for place, result in coming:
            if result is not None:
                heard(result)
            held.setdefault(place, []).append(result)
            while held.get(first):
                one = held[first].pop(0)
                if one is None:
                    del held[first]
                    first += 1
                else:
                    yield one
