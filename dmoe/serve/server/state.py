"""The state that the routes of a server share: its models, and the way from raw rows to scores."""

import asyncio
import time
from typing import Any

import numpy as np
import torch

from dmoe.data.dataset.manifest import RARE_ID
from dmoe.serve.encoding.row_encoder import EncodedRows
from dmoe.serve.server.answers import RETRY_SECONDS, Refused, log
from dmoe.serve.server.arms import Arms, Chosen
from dmoe.serve.server.batcher import QueueFull, TooLate
from dmoe.serve.server.bodies import Bodies
from dmoe.serve.server.exposer import Exposer
from dmoe.serve.server.metrics import Metrics
from dmoe.serve.server.options import ServeOptions
from dmoe.serve.server.versions import Version

FEW_ROWS = 8


class Server:
    """State that the routes share.

    Raises:
        UserError: the split or a model is wrong.
    """

    def __init__(self, options: ServeOptions) -> None:
        torch.set_num_threads(options.threads)
        self.options, self.metrics = options, Metrics()
        self.bodies = Bodies(options.body_mib, options.read_seconds)
        self._answering: dict[str, str] = {}
        self.arms = Arms(options, self.metrics.scored, self._told)
        self.versions, self.batcher = self.arms.control.versions, self.arms.control.batcher
        split = self.arms.split
        self.exposer = Exposer(split, self.arms.shadow, self.metrics, _failed) if split else None

    def _told(self, model: str, event: str, version: str, message: str) -> None:
        named: dict[str, Any] = {"version" if event == "loaded" else "folder": version}
        log(message, event, "info" if event == "loaded" else "warning", **named)
        if event == "loaded":
            before = self._answering.get(model)
            self._answering[model] = version
            if before and before not in self._answering.values():
                self.metrics.version.labels(before).set(0)
            self.metrics.version.labels(version).set(1)

    async def encoded(self, version: Version, rows: Any) -> EncodedRows:
        """Encodes raw rows, on a thread if there are many.

        Raises:
            Refused: the scorer takes only ids, or there are too many rows.
        """
        self._check_rows(len(rows))
        if not version.scorer.about.reads_raw_rows:
            raise Refused(400, "the scorer takes ids only: export it again where the training data is")
        encode = version.scorer.encoder.encode
        # For few rows, switching to a thread takes longer than encoding.
        found = encode(rows) if len(rows) <= FEW_ROWS else await asyncio.to_thread(encode, rows)
        bags = [bag.values for bag in found.bags.values()]
        # `ids_BF` has a placeholder, the missing id, for multi-valued features.
        self.metrics.values.inc(found.ids_BF.size - len(found) * len(bags) + sum(map(len, bags)))
        self.metrics.unknown.inc(sum(int((ids == RARE_ID).sum()) for ids in (found.ids_BF, *bags)))
        return found

    async def scores(self, chosen: Chosen, rows: EncodedRows, deadline: float) -> np.ndarray:
        """The logits of encoded rows, [B] float32.

        Raises:
            Refused: the queue is full, the deadline has passed, or there are too many rows.
        """
        self._check_rows(len(rows))
        if not len(rows):
            return np.zeros(0, np.float32)
        try:
            logit_B = await chosen.batcher.score(chosen.version, rows, deadline)
        except QueueFull:
            message = f"{chosen.batcher.waiting_rows:,} rows wait already, and {self.options.queue_rows:,} may"
            raise Refused(503, message, {"Retry-After": RETRY_SECONDS}) from None
        except TooLate:
            raise Refused(504, f"not scored within {self.options.deadline_ms} ms") from None
        self.metrics.waiting.set(self.waiting_rows)
        return logit_B

    def deadline(self) -> float:
        """The deadline of a request that arrives now, in seconds of `time.monotonic`."""
        return time.monotonic() + self.options.deadline_ms / 1000

    @property
    def waiting_rows(self) -> int:
        return sum(model.batcher.waiting_rows for model in self.arms.models)

    def _check_rows(self, rows: int) -> None:
        if rows > self.options.rows:
            raise Refused(413, f"{rows:,} rows, this server takes {self.options.rows:,} at once")

    async def close(self) -> None:
        """Stops following pointer files, waits for the shadow, and writes the remaining exposures."""
        self.arms.stop()
        if self.exposer:
            await self.exposer.close()


def _failed(problem: str) -> None:
    log(problem, "failed", "warning")
