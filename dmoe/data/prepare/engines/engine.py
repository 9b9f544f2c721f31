"""How the tasks of a stage are run: by the threads of this process, or by Ray's workers (dmoe.data.prepare.engines.ray_engine).

A task is a function of what all tasks of the stage share and of one item; it yields results. It may be run again where a worker dies,
beside a run of it that is not yet known to be dead: it writes each file whole (`dmoe.paths.write_atomic`), and gives
equal files and results each time.
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
    """`far` where tasks run in other processes: what they share is copied there, and so is every item."""

    far: bool

    @property
    def workers(self) -> int:
        """How many tasks run at a time."""

    def results(self, task: Callable[[Any, Any], Iterator[Any]], shared: Any, items: Iterable[Any]) -> Generator[tuple[int, Any]]:
        """(place of the item, result) of every result as it comes, those of an item in their order, then (place, None).

        Items are taken as there is room for them. Closed early, it starts no further task.
        """


class Threads:
    """This process's threads: no more items are held than threads, and two."""

    far = False

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def results(self, task: Callable[[Any, Any], Iterator[Any]], shared: Any, items: Iterable[Any]) -> Generator[tuple[int, Any]]:
        waiting: dict[Future[list[Any]], int] = {}

        def finished() -> Iterator[tuple[int, Any]]:
            # In order, so that of several errors the first item's is told.
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
    """
    Args:
        workers: tasks at a time; 0 for one a core, of this machine or of the cluster at `ray_address`.
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
    """The results of all tasks in the order of the items.

    Args:
        heard: called with every result as it comes, in any order, for the progress line.
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
