"""The models of a server: a single one, or those of the arms of a split and its shadow; and the exposure log."""

import asyncio
import re
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dmoe.errors import UserError, shown
from dmoe.serve.ab.exposures import Exposure, ExposureLog
from dmoe.serve.ab.split import OUTSIDE, Assigner, Split, read_split
from dmoe.serve.encoding.row_encoder import EncodedRows
from dmoe.serve.score_dataset import probabilities
from dmoe.serve.server.batcher import Batcher
from dmoe.serve.server.metrics import Metrics
from dmoe.serve.server.options import ServeOptions
from dmoe.serve.server.scratch import Scratch
from dmoe.serve.server.versions import Version, Versions, folder_of, load_version
from dmoe.storage.paths import PATHS

MAX_UNIT, MAX_REQUEST_ID = 1000, 200
REQUEST_ID, VOCABULARY = "x-request-id", "inputs/vocabulary/"
SHADOW_SECONDS, DRAIN_SECONDS = 30.0, 10.0
"""Deadline of a shadow for a request; and for the remaining requests after SIGTERM."""


class NoUnit(UserError):
    """A request without a valid unit, or with several."""


@dataclass(frozen=True)
class Model:
    """The versions of a scorer, and the batcher of its requests."""

    versions: Versions
    batcher: Batcher


@dataclass(frozen=True)
class Chosen:
    """The version and batcher that answer a request. `arm` is None without a split, and empty for a unit in no arm; `unit` may be empty."""

    version: Version
    batcher: Batcher
    arm: str | None = None
    unit: str = ""


class Arms:
    """Chooses the model that answers a request, and logs exposures.

    Args:
        told: called with (path of the model, event, version or folder, message), see `Versions`.
        failed: called with the message of an error of the exposure log or the shadow.

    Raises:
        UserError: the split or a model is wrong.
    """

    def __init__(
        self, options: ServeOptions, metrics: Metrics, told: Callable[[str, str, str, str], None], failed: Callable[[str], None]
    ) -> None:
        self.options, self.metrics, self._told, self._failed = options, metrics, told, failed
        self.split = read_split(options.split, f"--split {options.split}") if options.split else None
        self._by_path: dict[str, Model] = {}
        self.shadow: Model | None = None
        if self.split is None:
            self.control = self._model(options.model, f"--model {options.model}")
            return
        where = f"{options.split}: arms"
        self.of_arm = {name: self._model(arm.scorer, f"{where}.{name}.scorer {arm.scorer}") for name, arm in self.split.arms.items()}
        self.control, self.assigner = self.of_arm[self.split.control], Assigner(self.split)
        if shadow := self.split.shadow:
            # The shadow has its own queue, so that it does not delay answers.
            self.shadow = self._model(shadow.scorer, f"{options.split}: shadow.scorer {shadow.scorer}", shadow.queue_rows)
        self._tasks: set[asyncio.Task[None]] = set()
        self._shadow_rows = 0
        to = self.split.exposures
        self.log = ExposureLog(to.folder, to.rows, to.seconds, about_split(self.split), self._written)

    def _model(self, path: str, asked_by: str, queue_rows: int = 0) -> Model:
        key = f"{path}\0shadow" if queue_rows else path
        if key not in self._by_path:
            versions = Versions(path, lambda *event: self._told(path, *event), asked_by, self.options.engine, Scratch(self.options.scratch))
            o = self.options
            scored = (lambda rows, requests: None) if queue_rows else self.metrics.scored
            self._by_path[key] = Model(versions, Batcher(o.batch_rows, o.batch_us / 1e6, queue_rows or o.queue_rows, scored))
        return self._by_path[key]

    @property
    def models(self) -> list[Model]:
        """All models, each once."""
        return list(self._by_path.values())

    @property
    def answering(self) -> list[str]:
        """The names of the current versions, without that of the shadow."""
        models = [self.control] if self.split is None else self.of_arm.values()
        return sorted({model.versions.current.name for model in models})

    @property
    def shadow_columns(self) -> tuple[str, ...]:
        """The columns of raw rows that the shadow reads."""
        return self.shadow.versions.current.columns if self.shadow else ()

    @property
    def same_ids(self) -> bool:
        """Whether ids have the same meaning in all models: their features, cardinalities and vocabularies are equal."""
        abouts = [model.versions.current.scorer.about for model in self.models]
        kept = [{name: digest for name, digest in about.files.items() if name.startswith(VOCABULARY)} for about in abouts]
        return all((about.schema_hash, files) == (abouts[0].schema_hash, kept[0]) for about, files in zip(abouts, kept, strict=True))

    def choose(self, column: Callable[[str], Sequence[Any]], headers: Mapping[str, str], fields: Mapping[str, Any]) -> Chosen:
        """Chooses the model that answers a request.

        Args:
            column: name -> values of a column of the request's rows; empty if the column is missing.
            headers, fields: of the request.

        Raises:
            NoUnit: the split needs a unit, but the request has none, several, or an invalid one.
        """
        if self.split is None:
            return Chosen(self.control.versions.current, self.control.batcher)
        unit = self._unit(self.split, column, headers, fields)
        arm = self.assigner.arms_of([unit])[0] if unit else OUTSIDE
        model = self.of_arm[arm] if arm else self.control
        return Chosen(model.versions.current, model.batcher, arm, unit)

    def _unit(self, split: Split, column: Callable[[str], Sequence[Any]], headers: Mapping[str, str], fields: Mapping[str, Any]) -> str:
        source = split.unit
        if source.column:
            found = {unit_text(value, source.told) for value in column(source.column)} or {""}
            if len(found) > 1:
                raise NoUnit(f"{source.told}: rows of several units ({shown(sorted(found)[:3])}): a request is of one, send one each")
            (unit,) = found
        elif source.header:
            # Header values are decoded as Latin-1, but clients send UTF-8.
            unit = unit_text(headers.get(source.header, "").encode("latin-1"), source.told)
        else:
            unit = unit_text(fields.get(source.field or ""), source.told)
        if not unit and split.missing_unit == "refuse":
            raise NoUnit(f"{source.told}: the request has none, and the A/B test '{split.test}' asks for it")
        return unit

    def expose(self, chosen: Chosen, request_id: str, score_B: np.ndarray, rows: Any) -> None:
        """Logs the answer to a unit in an arm, with the scores of the shadow if its queue has room for the rows.

        Args:
            rows: raw rows, or `EncodedRows` if the request has ids.
        """
        if chosen.arm is None:
            return
        self.metrics.arm_rows.labels(chosen.arm or "none").inc(len(score_B))
        if chosen.arm == OUTSIDE:
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
        """Scores a request with the shadow, after it was answered, and logs both scores."""
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

    def follow(self) -> None:
        """Follows every model's pointer file."""
        for model in self.models:
            model.versions.follow(self.options.follow_seconds)

    async def close(self) -> None:
        """Stops following pointer files, waits for the shadow, and writes the remaining exposures."""
        for model in self.models:
            model.versions.stop()
        if self.split is None:
            return
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


def check(options: ServeOptions) -> dict[str, str]:
    """Loads each model once, to find errors early; returns path -> `Version.told`.

    Raises:
        UserError: the split or a model is wrong.
    """
    paths = {options.model: f"--model {options.model}"}
    if options.split:
        split, where = read_split(options.split, f"--split {options.split}"), options.split
        paths = {arm.scorer: f"{where}: arms.{name}.scorer {arm.scorer}" for name, arm in split.arms.items()}
        paths |= {split.shadow.scorer: f"{where}: shadow.scorer {split.shadow.scorer}"} if split.shadow else {}
        PATHS.mkdirs(split.exposures.folder)
    found = {}
    for path, asked_by in paths.items():
        version = load_version(folder_of(path, asked_by), engine=options.engine)
        found[path] = version.told
        version.remove()
    return found


def about_split(split: Split) -> dict[str, Any]:
    """The description of the test in the metadata of exposure files."""
    shares = {name: arm.share for name, arm in split.arms.items()}
    return {"test": split.test, "salt": split.salt, "unit": split.unit.told, "control": split.control, "arms": shares}


def unit_text(value: Any, where: str) -> str:
    """The text of a unit; empty if there is none. 17 and "17" are the same unit.

    Raises:
        NoUnit: the value is neither text nor an integer, or its text is too long or not printable.
    """
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            raise NoUnit(f"{where}: {shown(value)} is no UTF-8") from None
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | np.integer):
        raise NoUnit(f"{where}: {shown(value)}, expected text or a whole number")
    text = str(value)
    if len(text) > MAX_UNIT or not text.isprintable():
        raise NoUnit(f"{where}: {shown(text)}, expected at most {MAX_UNIT} printable characters")
    return text


def request_id(given: str | None) -> str:
    """The request id in ASCII that is valid in a header; a new random id if none is given."""
    return re.sub(r"[^!-~]", "_", given)[:MAX_REQUEST_ID] if given else uuid.uuid4().hex
