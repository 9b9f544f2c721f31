"""Combines waiting requests into batches, because a call of the model takes almost the same time for one row as for several.

Shapes: B rows of a request, I numeric features, F categorical features.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from dmoe.serve.encoding.row_encoder import EncodedRows, concatenated
from dmoe.serve.server.versions import Version


class QueueFull(Exception):
    """Too many rows are waiting; the client may try again later."""


class TooLate(Exception):
    """The request's deadline passed before it was scored."""


@dataclass
class _Waiting:
    version: Version
    rows: EncodedRows
    deadline: float
    answer: "asyncio.Future[np.ndarray]" = field(repr=False)


class Batcher:
    """Scores requests in batches on a thread. All requests of a batch use the same version, and a request is never split.

    Args:
        rows: largest number of rows in a batch, unless a single request has more.
        wait: seconds that the first request of a batch waits for others.
        queue_rows: largest number of waiting rows.
        scored: called with the numbers of rows and requests of each batch.

    Attributes:
        thread: the thread that scores, one batch at a time.
    """

    def __init__(self, rows: int, wait: float, queue_rows: int, scored: Callable[[int, int], None] = lambda rows, requests: None) -> None:
        self.most, self.wait, self.queue_rows, self.scored = rows, wait, queue_rows, scored
        self.waiting: deque[_Waiting] = deque()
        self.waiting_rows = 0
        self.thread = ThreadPoolExecutor(1, "scorer")
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def score(self, version: Version, rows: EncodedRows, deadline: float) -> np.ndarray:
        """The logits of the rows of a request, [B] float32.

        Args:
            deadline: latest time to start scoring, in seconds of `time.monotonic`.

        Raises:
            QueueFull: too many rows are waiting.
            TooLate: the deadline has passed.
            UserError: the model cannot score an id or a number of these rows.
        """
        if self.waiting_rows and self.waiting_rows + len(rows) > self.queue_rows:
            raise QueueFull
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        one = _Waiting(version, rows, deadline, asyncio.get_running_loop().create_future())
        self.waiting.append(one)
        self.waiting_rows += len(rows)
        self._wake.set()
        return await one.answer

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            if self.wait and self.waiting_rows < self.most:
                await asyncio.sleep(self.wait)
            batch = self._take()
            if not self.waiting:
                self._wake.clear()
            if batch:
                await self._score(batch)

    def _take(self) -> list[_Waiting]:
        """Takes the next requests of one version from the queue. Requests past their deadline fail; those whose client has gone are
        dropped."""
        batch: list[_Waiting] = []
        size, now = 0, time.monotonic()
        while self.waiting:
            one = self.waiting[0]
            if batch and (one.version is not batch[0].version or size + len(one.rows) > self.most):
                break
            self.waiting.popleft()
            self.waiting_rows -= len(one.rows)
            if one.answer.done():
                continue
            if now > one.deadline:
                one.answer.set_exception(TooLate())
                continue
            batch.append(one)
            size += len(one.rows)
        return batch

    async def _score(self, batch: list[_Waiting]) -> None:
        loop = asyncio.get_running_loop()
        try:
            logits = await loop.run_in_executor(self.thread, _logits, batch[0].version, [one.rows for one in batch])
            self.scored(sum(len(one.rows) for one in batch), len(batch))
        except Exception as error:
            if len(batch) > 1:
                # Scores each request alone, so that invalid rows fail only their own request.
                for one in batch:
                    await self._score([one])
                return
            if not batch[0].answer.done():
                batch[0].answer.set_exception(error)
            return
        for one, logit_B in zip(batch, logits, strict=True):
            if not one.answer.done():
                one.answer.set_result(logit_B)


def _logits(version: Version, requests: Sequence[EncodedRows]) -> list[np.ndarray]:
    together = concatenated(requests)
    logit_B = version.scorer.logits(together.dense_BI, together.ids_BF, together.bags)
    return np.split(logit_B, np.cumsum([len(one) for one in requests])[:-1])
