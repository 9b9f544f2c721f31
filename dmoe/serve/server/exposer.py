"""Logs the answers of an A/B test, with the scores of its shadow, which are computed after a request was answered."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from dmoe.serve.ab.exposures import Exposure, ExposureLog
from dmoe.serve.ab.split import OUTSIDE, Split
from dmoe.serve.encoding.row_encoder import EncodedRows
from dmoe.serve.score_dataset import probabilities
from dmoe.serve.server.arms import Chosen, Model
from dmoe.serve.server.metrics import Metrics

SHADOW_SECONDS, DRAIN_SECONDS = 30.0, 10.0
"""Deadline of a shadow for a request; and for the remaining requests after SIGTERM."""


class Exposer:
    """Logs exposures.

    Args:
        shadow: its queue has room for some rows; exposures of further ones are logged without its scores.
        failed: called with the message of an error of the exposure log or the shadow.
    """

    def __init__(self, split: Split, shadow: Model | None, metrics: Metrics, failed: Callable[[str], None]) -> None:
        self.shadow, self.metrics, self._failed = shadow, metrics, failed
        self._tasks: set[asyncio.Task[None]] = set()
        self._shadow_rows = 0
        to = split.exposures
        self.log = ExposureLog(to.folder, to.rows, to.seconds, about_split(split), self._written)

    def add(self, chosen: Chosen, request_id: str, score_B: np.ndarray, rows: Any) -> None:
        """Logs the answer to a unit in an arm; counts one to a unit in no arm.

        Args:
            score_B: [B] float32.
            rows: raw rows, or `EncodedRows` if the request has ids.
        """
        self.metrics.arm_rows.labels(chosen.arm or "none").inc(len(score_B))
        if not chosen.arm:
            assert chosen.arm == OUTSIDE
            return
        one = Exposure(chosen.unit, chosen.arm, chosen.version.name, score_B, request_id, time.time())
        if self.shadow is None or not len(score_B):
            self.log.add(one)
            return
        if self._shadow_rows and self._shadow_rows + len(score_B) > self.shadow.batcher.queue_rows:
            self.metrics.shadow_rows.labels("dropped").inc(len(score_B))
            self.log.add(one)
            return
        self._shadow_rows += len(score_B)
        task = asyncio.create_task(self._shadowed(self.shadow, one, rows))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _shadowed(self, shadow: Model, one: Exposure, rows: Any) -> None:
        """Scores a request with the shadow, and logs both scores."""
        version, state = shadow.versions.current, "failed"
        try:
            found = rows
            if not isinstance(rows, EncodedRows):
                # On the thread of the shadow, so that no thread is taken from answers.
                found = await asyncio.get_running_loop().run_in_executor(shadow.batcher.thread, version.scorer.encoder.encode, rows)
            logit_B = await shadow.batcher.score(version, found, time.monotonic() + SHADOW_SECONDS)
            one = replace(one, shadow_B=probabilities(logit_B).astype(np.float32), shadow_version=version.name)
            state = "scored"
        # No client waits for the shadow, so its errors are only counted and logged.
        except Exception as error:
            self._failed(f"shadow: {type(error).__name__}: {error}")
        finally:
            self._shadow_rows -= len(one.score_B)
            self.metrics.shadow_rows.labels(state).inc(len(one.score_B))
            self.log.add(one)

    async def close(self) -> None:
        """Waits for the shadow, and writes the remaining exposures."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=DRAIN_SECONDS)
            for task in late:
                task.cancel()
            # A cancelled task logs its exposure without the shadow's score.
            await asyncio.gather(*late, return_exceptions=True)
        await asyncio.to_thread(self.log.close)

    def _written(self, rows: int, lost: int, problem: str) -> None:
        self.metrics.exposures.labels("written").inc(rows)
        self.metrics.exposures.labels("lost").inc(lost)
        if lost or problem:
            self._failed(f"exposures: {problem or 'too many rows wait'}" + (f"; {lost:,} rows are lost" if lost else ""))


def about_split(split: Split) -> dict[str, Any]:
    """The description of the test in the metadata of exposure files."""
    shares = {name: arm.share for name, arm in split.arms.items()}
    return {"test": split.test, "salt": split.salt, "unit": split.unit.told, "control": split.control, "arms": shares}
