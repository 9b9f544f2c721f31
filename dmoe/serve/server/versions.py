"""The current version of a model, and the change to the next version, which is first loaded, verified and warmed up."""

import hashlib
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np

from dmoe.data.dataset.reading.bags import Bags
from dmoe.errors import MOST_NAMES, UserError, one_line, told_by_system
from dmoe.names import quoted
from dmoe.serve.export.delta import DELTA
from dmoe.serve.export.format import FILE
from dmoe.serve.pointer import folder_at, read_pointer
from dmoe.serve.scorer import Scorer
from dmoe.serve.server.scratch import Scratch
from dmoe.storage.paths import PATHS, join

WARM_UP_ROWS = (1, 64)
WARM_UP_VALUES = ("0", 0)
"""A text and a number: numba compiles the look-ups of both at their first call, which takes seconds without a cache."""
Engine = Literal["torch", "onnx"] | None


@dataclass(frozen=True)
class Version:
    """A loaded version of a model.

    Attributes:
        name: step of the scorer, and the first digits of the SHA-256 of its scorer.json.
        folder: folder of the version. If it is a delta, the files of the full scorer are in a temporary folder, `scorer.folder`.
        digest: SHA-256 of scorer.json.
    """

    name: str
    folder: str
    scorer: Scorer
    digest: str = ""

    @property
    def made_here(self) -> bool:
        return self.scorer.folder != self.folder

    def remove(self) -> None:
        """Removes the temporary folder of a delta. Requests that still use its mapped pages are not affected."""
        if self.made_here:
            shutil.rmtree(self.scorer.folder, ignore_errors=True)

    @property
    def told(self) -> str:
        return f"version {self.name}, engine {self.scorer.engine}"

    @property
    def columns(self) -> tuple[str, ...]:
        return self.scorer.encoder.columns if self.scorer.about.reads_raw_rows else ()


def load_version(folder: str, current: Version | None = None, engine: Engine = None, scratch: Scratch | None = None) -> Version:
    """Loads a scorer, or makes it from a chain of deltas. Verifies the checksums of its files, and scores some rows to warm up.

    Args:
        current: the current version, from which a chain of deltas may start.
        engine: engine of the scorer.
        scratch: where full scorers are made of deltas; by default in a temporary folder.

    Raises:
        UserError: the folder holds no scorer, or a damaged one.
    """
    if not PATHS.exists(join(folder, DELTA)):
        return _load(folder, folder, engine)
    place = (scratch or Scratch()).full(folder, {current.digest: current.scorer.folder} if current else {})
    try:
        return _load(folder, place, engine)
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise


def _load(folder: str, place: str, engine: Engine) -> Version:
    scorer = Scorer(place, engine=engine)
    with PATHS.open(join(place, FILE), "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()
    for rows in WARM_UP_ROWS:
        one_id = Bags(np.zeros(rows, np.int32), np.arange(rows + 1))
        bags = {feature.name: one_id for feature in scorer.about.features if feature.pooling != "none"}
        scorer.logits(np.zeros((rows, len(scorer.about.dense)), np.float32), np.zeros((rows, len(scorer.about.features)), np.int32), bags)
    if scorer.about.reads_raw_rows:
        for row in ({}, *_warm_up_rows(scorer)):
            # The row may be invalid: a column may not allow such values, or may be a time, which must not be missing.
            with suppress(UserError):
                scorer.predict([row])
                # The way of rows that are not simple: types that differ, or a dictionary of Arrow.
                scorer.encoder.encode_all([row])
    return Version(f"{scorer.about.step}-{digest[:12]}", folder, scorer, digest)


def _warm_up_rows(scorer: Scorer) -> Iterator[dict[str, Any]]:
    time = scorer.encoder.schema.time
    for value in WARM_UP_VALUES:
        row: dict[str, Any] = dict.fromkeys(scorer.encoder.columns, value)
        if time and time.column in row and time.format and "%" in time.format:
            row[time.column] = datetime(2000, 1, 1, tzinfo=UTC).strftime(time.format)
        yield row


def folder_of(model: str, asked_by: str) -> str:
    """The folder of a model: `model` itself, or the folder that the first line of a pointer file names.

    Args:
        asked_by: start of error messages, such as `--model X`.

    Raises:
        UserError: `model` is neither a scorer nor a pointer file.
    """
    if PATHS.exists(join(model, FILE)) or PATHS.exists(join(model, DELTA)):
        return model
    if PATHS.isdir(model):
        raise UserError(f"{asked_by}: no scorer (no {FILE}); make one with dmoe export, or name a pointer file")
    return folder_at(model, read_pointer(model, asked_by)[0])


def first_version(model: str, asked_by: str, engine: Engine = None, scratch: Scratch | None = None) -> Version:
    """Loads the version of a model that a server starts with; see `folder_of` and `load_version`.

    Raises:
        UserError: there is none, or it cannot be loaded; of a pointer file, says so.
    """
    folder = folder_of(model, asked_by)
    try:
        return load_version(folder, engine=engine, scratch=scratch)
    except UserError as error:
        if folder == model:
            raise
        raise UserError(f"{asked_by}: its first line names {one_line(folder)}: {error}") from None


def other_columns(before: Sequence[str], now: Sequence[str]) -> str:
    """A remark if a version reads other raw columns than the one before, whose clients may not send them; else empty."""
    more, less = ([one for one in some if one not in others] for some, others in ((now, before), (before, now)))
    said = [
        f"{what} {', '.join(map(quoted, some[:MOST_NAMES]))}" for what, some in (("now reads", more), ("no longer reads", less)) if some
    ]
    return f" (another model: it {' and '.join(said)})" if said else ""


class Versions:
    """The current version of a model, and a thread that follows its pointer file.

    Args:
        model: folder of a scorer, or a pointer file.
        told: called with ("loaded", name of the version, its folder) or ("refused", folder, reason).
        asked_by: start of error messages about `model`.
        engine: engine of the scorers.
        scratch: shared with the other worker processes. A process that starts later takes the version that they answer with if the pointer
            file names one that cannot be loaded.
    """

    def __init__(
        self, model: str, told: Callable[[str, str, str], None], asked_by: str, engine: Engine = None, scratch: Scratch | None = None
    ) -> None:
        self.model, self.told, self.asked_by, self.engine, self.scratch = model, told, asked_by, engine, scratch or Scratch()
        self._refused: tuple[str, int] | None = None
        self._ended = threading.Event()
        try:
            self._take(first_version(model, asked_by, engine, self.scratch))
        except UserError:
            if not (folder := self.scratch.remembered(model)):
                raise
            # `look` tells why the other one was refused.
            self._take(load_version(folder, engine=engine, scratch=self.scratch))

    def _take(self, version: Version, before: Version | None = None) -> None:
        self.current = version
        self.scratch.remember(self.model, version.folder)
        self.told("loaded", version.name, version.folder + (other_columns(before.columns, version.columns) if before else ""))

    def follow(self, seconds: float) -> None:
        """Starts a thread that checks the pointer file every `seconds`, until `stop`."""
        threading.Thread(target=self._follow, args=(seconds,), daemon=True, name="versions").start()

    def stop(self) -> None:
        self._ended.set()
        self.current.remove()

    def _follow(self, seconds: float) -> None:
        while not self._ended.wait(seconds):
            self.look()

    def look(self) -> None:
        """Loads the version that the pointer file names now. If that fails, this is reported once, and the current version stays."""
        try:
            folder = folder_of(self.model, self.asked_by)
            changed = 0 if "://" in folder else max(os.stat(path).st_mtime_ns for path in self._descriptions(folder))
        except (OSError, UserError) as error:
            self._refuse(self.model, 0, told_by_system(error) if isinstance(error, OSError) else str(error))
            return
        if folder == self.current.folder or self._refused == (folder, changed):
            return
        try:
            version = load_version(folder, self.current, self.engine, self.scratch)
        # No error of the new version may end the current one.
        except Exception as error:
            self._refuse(folder, changed, f"{error}" if isinstance(error, UserError) else f"{type(error).__name__}: {error}")
            return
        before, self._refused = self.current, None
        self._take(version, before)
        before.remove()

    @staticmethod
    def _descriptions(folder: str) -> list[str]:
        there = [path for path in (join(folder, FILE), join(folder, DELTA)) if os.path.exists(path)]
        return there or [join(folder, FILE)]

    def _refuse(self, folder: str, changed: int, message: str) -> None:
        if self._refused != (folder, changed):
            self._refused = folder, changed
            self.told("refused", folder, message)
