"""The exposure log of an A/B test: unit, arm and score of each answered row, in rotating Parquet files. Requests never wait for a write."""

import os
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dmoe.finite import require_finite
from dmoe.json_text import format_json
from dmoe.storage.paths import PATHS, join, write_atomic

SCHEMA = pa.schema(
    [
        ("unit", pa.string()),
        ("arm", pa.string()),
        ("version", pa.string()),
        ("score", pa.float32()),
        ("request_id", pa.string()),
        ("row", pa.int32()),
        ("time", pa.timestamp("us", "UTC")),
        ("shadow_score", pa.float32()),
        ("shadow_version", pa.string()),
    ]
)
"""Each log row is a scored row of a request; `row` is its number in the request, from 0. `shadow_*` are null if no shadow scored it."""
PREFIX = "exposures-"
SPLIT_KEY = b"dmoe.split"
"""Key in the metadata of a file; the value is JSON with the test, its salt, unit, control and the shares of the arms."""
MOST_WAITING = 4
"""While files cannot be written, up to MOST_WAITING * `rows` rows are kept in memory; further rows are lost, and counted."""


@dataclass(frozen=True)
class Exposure:
    """The answer to a request: scores [B] float32; `seconds` since 1970, UTC."""

    unit: str
    arm: str
    version: str
    score_B: np.ndarray
    request_id: str
    seconds: float
    shadow_B: np.ndarray | None = None
    shadow_version: str | None = None


class ExposureLog:
    """Accepts exposures from any thread, and writes them on its own thread.

    Args:
        folder: folder of the files; created if missing.
        rows, seconds: a file is written when there are `rows` rows, or when the first row is `seconds` old.
        split: description of the test, stored in the metadata of the files.
        told: called on the writing thread with (rows written, rows lost, error message or "").

    Raises:
        OSError: the folder cannot be made.
    """

    def __init__(
        self, folder: str, rows: int, seconds: float, split: Mapping[str, Any], told: Callable[[int, int, str], None] = lambda *_: None
    ) -> None:
        self.folder, self.rows, self.seconds, self.told = folder, rows, seconds, told
        PATHS.mkdirs(folder)
        self.schema = SCHEMA.with_metadata({SPLIT_KEY: format_json(split).encode()})
        self._waiting: list[Exposure] = []
        self._size, self._lost, self._files = 0, 0, 0
        self._first = self._not_before = 0.0
        self._name = f"{os.getpid()}-{secrets.token_hex(3)}"
        self._changed, self._ended = threading.Condition(), False
        self._thread = threading.Thread(target=self._run, daemon=True, name="exposures")
        self._thread.start()

    def add(self, exposure: Exposure) -> None:
        """Queues the rows of a request. Never waits for the disk, and never fails."""
        rows = len(exposure.score_B)
        with self._changed:
            if not rows:
                return
            if self._ended or (self._size and self._size + rows > MOST_WAITING * self.rows):
                self._lost += rows
                return
            if not self._size:
                self._first = time.monotonic()
            self._waiting.append(exposure)
            self._size += rows
            if len(self._waiting) == 1 or self._size >= self.rows:
                self._changed.notify()

    def close(self) -> None:
        """Writes the queued rows. Rows that cannot be written are lost, and reported to `told`."""
        with self._changed:
            self._ended = True
            self._changed.notify()
        self._thread.join()

    def _due(self) -> float:
        """Seconds until the next file must be written; infinite if no rows are queued."""
        if not self._size:
            return float("inf")
        now = time.monotonic()
        full = 0.0 if self._size >= self.rows else self._first + self.seconds - now
        return max(full, self._not_before - now)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._ended and (due := self._due()) > 0:
                    self._changed.wait(None if due == float("inf") else due)
                ended, waiting, size = self._ended, self._waiting, self._size
                self._waiting, self._size = [], 0
                lost, self._lost = self._lost, 0
            problem = self._write(waiting) if waiting else ""
            if problem and not ended:
                # Tries again after `seconds`, together with the rows that have arrived by then.
                with self._changed:
                    self._first = self._not_before = time.monotonic() + self.seconds
                    self._waiting, self._size = waiting + self._waiting, size + self._size
            self.told(0 if problem else size, lost + (size if problem and ended else 0), problem)
            if ended:
                return

    def _write(self, waiting: list[Exposure]) -> str:
        """Writes one file; returns an error message, or an empty text."""
        self._files += 1
        at = datetime.fromtimestamp(waiting[0].seconds, UTC)
        path = join(self.folder, f"{PREFIX}{at:%Y%m%dT%H%M%SZ}-{self._name}-{self._files:06}.parquet")
        try:
            table = _table(waiting, self.schema)
            with write_atomic(path) as file:
                pq.write_table(table, file, compression="zstd")
        # No error of a disk or a store may end the thread.
        except Exception as error:
            return f"{path}: {error}"
        return ""


def _table(waiting: list[Exposure], schema: pa.Schema) -> pa.Table:
    rows = [len(one.score_B) for one in waiting]

    def column(values: list[Any], kind: pa.DataType) -> pa.Array:
        return pa.array(values, kind).take(pa.array(np.repeat(np.arange(len(rows)), rows)))

    shadow = [pa.nulls(n, pa.float32()) if one.shadow_B is None else pa.array(one.shadow_B) for n, one in zip(rows, waiting, strict=True)]
    columns = {
        "unit": column([one.unit for one in waiting], pa.string()),
        "arm": column([one.arm for one in waiting], pa.string()),
        "version": column([one.version for one in waiting], pa.string()),
        "score": pa.array(require_finite(np.concatenate([one.score_B for one in waiting]), "the score"), pa.float32()),
        "request_id": column([one.request_id for one in waiting], pa.string()),
        "row": pa.array(np.concatenate([np.arange(n, dtype=np.int32) for n in rows])),
        "time": column([round(one.seconds * 1e6) for one in waiting], pa.timestamp("us", "UTC")),
        "shadow_score": pa.concat_arrays(shadow),
        "shadow_version": column([one.shadow_version for one in waiting], pa.string()),
    }
    return pa.table(columns, schema=schema)
