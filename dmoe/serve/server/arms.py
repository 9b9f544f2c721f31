"""The models of one server: one alone, or those of a split's arms, and a shadow; and the log of who was answered by which."""

import asyncio
import re
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dmoe.errors import UserError, shown
from dmoe.paths import PATHS
from dmoe.serve.ab.exposures import Exposure, ExposureLog
from dmoe.serve.ab.split import OUTSIDE, Assigner, Split, read_split
from dmoe.serve.row_encoder import EncodedRows
from dmoe.serve.score_dataset import probabilities
from dmoe.serve.server.batcher import Batcher
from dmoe.serve.server.metrics import Metrics
from dmoe.serve.server.options import ServeOptions
from dmoe.serve.server.versions import Version, Versions, folder_of, load_version

MAX_UNIT, MAX_REQUEST_ID = 1000, 200
REQUEST_ID, VOCABULARY = "x-request-id", "inputs/vocabulary/"
SHADOW_SECONDS, DRAIN_SECONDS = 30.0, 10.0
"""In which a shadow has to score a request; and in which it has to end at SIGTERM."""


class NoUnit(UserError):
    """A request that does not say whose it is, or says two."""


@dataclass(frozen=True)
class Model:
    """A scorer that is followed, and what scores with it."""

    versions: Versions
    batcher: Batcher


@dataclass(frozen=True)
class Chosen:
    """What answers a request. `arm` is None without a split, and empty for a unit that is in none; `unit` is empty where there is none."""

    version: Version
    batcher: Batcher
    arm: str | None = None
    unit: str = ""


class Arms:
    """
    Args:
        told: called with (model's path, event, version or folder, message) as `Versions` does.
        failed: called with what went wrong with the log of exposures.

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
            # Its queue is its own, so that it holds nobody up.
            self.shadow = self._model(shadow.scorer, f"{options.split}: shadow.scorer {shadow.scorer}", shadow.queue_rows)
        self._tasks: set[asyncio.Task[None]] = set()
        self._shadow_rows = 0
        to = self.split.exposures
        self.log = ExposureLog(to.folder, to.rows, to.seconds, about_split(self.split), self._written)

    def _model(self, path: str, asked_by: str, queue_rows: int = 0) -> Model:
        key = f"{path}\0shadow" if queue_rows else path
        if key not in self._by_path:
            versions = Versions(path, lambda *event: self._told(path, *event), asked_by, self.options.engine)
            o = self.options
            scored = (lambda rows, requests: None) if queue_rows else self.metrics.scored
            self._by_path[key] = Model(versions, Batcher(o.batch_rows, o.batch_us / 1e6, queue_rows or o.queue_rows, scored))
        return self._by_path[key]

    @property
    def models(self) -> list[Model]:
        """Every model once."""
        return list(self._by_path.values())

    @property
    def answering(self) -> list[str]:
        """The names of the versions that answer now, without the shadow's."""
        models = [self.control] if self.split is None else self.of_arm.values()
        return sorted({model.versions.current.name for model in models})

    @property
    def shadow_columns(self) -> tuple[str, ...]:
        """What the shadow reads of raw rows."""
        return self.shadow.versions.current.columns if self.shadow else ()

    @property
    def same_ids(self) -> bool:
        """Whether an id is the same value to every model: their features, cardinalities and vocabularies are equal."""
        abouts = [model.versions.current.scorer.about for model in self.models]
        kept = [{name: digest for name, digest in about.files.items() if name.startswith(VOCABULARY)} for about in abouts]
        return all((about.schema_hash, files) == (abouts[0].schema_hash, kept[0]) for about, files in zip(abouts, kept, strict=True))

    def choose(self, column: Callable[[str], Sequence[Any]], headers: Mapping[str, str], fields: Mapping[str, Any]) -> Chosen:
        """What answers a request.

        Args:
            column: the values of a column of its rows; none where it is not there.
            headers, fields: of the request.

        Raises:
            NoUnit: the split asks for a unit, and the request has none, several, or what is none.
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
            # Headers come as Latin-1; what was sent is UTF-8.
            unit = unit_text(headers.get(source.header, "").encode("latin-1"), source.told)
        else:
            unit = unit_text(fields.get(source.field or ""), source.told)
        if not unit and split.missing_unit == "refuse":
            raise NoUnit(f"{source.told}: the request has none, and the A/B test '{split.test}' asks for it")
        return unit

    def expose(self, chosen: Chosen, request_id: str, score_B: np.ndarray, rows: Any) -> None:
        """Logs what a unit in an arm was answered, with the shadow's scores if that has room for them.

        Args:
            rows: raw ones, or `EncodedRows` of a request of ids.
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
        """Scores a request again, after its answer, and logs both."""
        version, state = shadow.versions.current, "failed"
        try:
            found = rows
            if not isinstance(rows, EncodedRows):
                # On the shadow's own thread: it takes none of those that answers wait for.
                found = await asyncio.get_running_loop().run_in_executor(shadow.batcher.thread, version.scorer.encoder.encode, rows)
            logit_B = await shadow.batcher.score(version, found, time.monotonic() + SHADOW_SECONDS)
            one = replace(one, shadow_B=probabilities(logit_B).astype(np.float32), shadow_version=version.name)
            state = "scored"
        # Nobody waits for it: what a shadow cannot score is counted.
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
        """Stops following, waits for the shadow, and writes the exposures that are left."""
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


def check(options: ServeOptions) -> None:
    """Loads each model once, for the errors that there may be.

    Raises:
        UserError: the split or a model is wrong.
    """
    paths = {options.model: f"--model {options.model}"}
    if options.split:
        split, where = read_split(options.split, f"--split {options.split}"), options.split
        paths = {arm.scorer: f"{where}: arms.{name}.scorer {arm.scorer}" for name, arm in split.arms.items()}
        paths |= {split.shadow.scorer: f"{where}: shadow.scorer {split.shadow.scorer}"} if split.shadow else {}
        PATHS.mkdirs(split.exposures.folder)
    for path, asked_by in paths.items():
        load_version(folder_of(path, asked_by), engine=options.engine).remove()


def about_split(split: Split) -> dict[str, Any]:
    """What a file of exposures says of its test."""
    shares = {name: arm.share for name, arm in split.arms.items()}
    return {"test": split.test, "salt": split.salt, "unit": split.unit.told, "control": split.control, "arms": shares}


def unit_text(value: Any, where: str) -> str:
    """The text of a unit: 17 and "17" are the same one; empty where there is none.

    Raises:
        NoUnit: neither text nor a whole number, or too long a text.
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
    """The request's id as ASCII that a header may hold, or one that we give it."""
    return re.sub(r"[^!-~]", "_", given)[:MAX_REQUEST_ID] if given else uuid.uuid4().hex
