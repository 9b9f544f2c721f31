"""Prepares batches ahead in a thread."""

import queue
import threading
from collections.abc import Iterator

from dmoe.data.dataset.batch import Batch


def ahead(batches: Iterator[Batch], depth: int) -> Iterator[Batch]:
    """Yields the same batches, at most `depth` of which a thread prepares ahead. An exception of the thread is raised here. The thread
    stops when the iterator is deleted."""
    ready: queue.Queue[Batch | BaseException | None] = queue.Queue(depth)
    stopped = threading.Event()

    def put(item: Batch | BaseException | None) -> bool:
        while not stopped.is_set():
            try:
                ready.put(item, timeout=0.1)
                return True
            except queue.Full:
                pass
        return False

    def run() -> None:
        try:
            for batch in batches:
                if not put(batch):
                    return
            put(None)
        except BaseException as error:
            put(error)

    thread = threading.Thread(target=run, daemon=True, name="reader")
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        thread.join()
