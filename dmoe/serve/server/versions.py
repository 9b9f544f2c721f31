"""The version of a model that answers requests, and how the next one takes over: it is loaded, verified and warmed up first."""

import hashlib
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np

from dmoe.data.dataset.bags import Bags
from dmoe.errors import UserError
from dmoe.paths import PATHS, join
from dmoe.serve.delta import DELTA, materialise
from dmoe.serve.format import FILE
from dmoe.serve.pointer import folder_at, read_pointer
from dmoe.serve.scorer import Scorer

WARM_UP_ROWS = (1, 64)
WARM_UP_VALUES = ("0", 0)
"""Texts and numbers are looked up by code that numba compiles when it is first called, which takes seconds where nothing is cached."""
Engine = Literal["torch", "onnx"] | None


@dataclass(frozen=True)
class Version:
    """`name` tells a scorer's contents: its step, and the beginning of the SHA-256 of its scorer.json.

    `folder` is the version's; where it is a delta, the scorer's files are in a temporary folder, `scorer.folder`.
    """

    name: str
    folder: str
    scorer: Scorer
    digest: str = ""

    @property
    def made_here(self) -> bool:
        return self.scorer.folder != self.folder

    def remove(self) -> None:
        """Removes what was made of deltas; its pages stay mapped for requests that still use them."""
        if self.made_here:
            shutil.rmtree(self.scorer.folder, ignore_errors=True)

    @property
    def columns(self) -> tuple[str, ...]:
        return self.scorer.encoder.columns if self.scorer.about.reads_raw_rows else ()


def load_version(folder: str, current: Version | None = None, engine: Engine = None) -> Version:
    """Loads a scorer, or makes it of a chain of deltas; checks its files against their checksums, and scores some rows.

    Args:
        current: the version that answers now, from which a delta may lead.
        engine: of the scorer.

    Raises:
        UserError: not a scorer, or a damaged one.
    """
    place = folder
    try:
        if PATHS.exists(join(folder, DELTA)):
            place = tempfile.mkdtemp(prefix="dmoe-serve-")
            made = materialise(folder, place, {current.digest: current.scorer.folder} if current else None)
            assert made == place
        return _load(folder, place, engine)
    except BaseException:
        if place != folder:
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
            # A column may have no such values, and a time must be given.
            with suppress(UserError):
                scorer.predict([row])
    return Version(f"{scorer.about.step}-{digest[:12]}", folder, scorer, digest)


def _warm_up_rows(scorer: Scorer) -> Iterator[dict[str, Any]]:
    time = scorer.encoder.schema.time
    for value in WARM_UP_VALUES:
        row: dict[str, Any] = dict.fromkeys(scorer.encoder.columns, value)
        if time and time.column in row and time.format and "%" in time.format:
            row[time.column] = datetime(2000, 1, 1, tzinfo=UTC).strftime(time.format)
        yield row


def folder_of(model: str, asked_by: str) -> str:
    """The scorer's folder that a user means: itself, or what the first line of a pointer file names, seen from that file.

    Args:
        asked_by: begins the error messages, such as `--model X`.

    Raises:
        UserError: neither.
    """
    if PATHS.exists(join(model, FILE)) or PATHS.exists(join(model, DELTA)):
        return model
    return folder_at(model, read_pointer(model, asked_by)[0])


class Versions:
    """The current version of a model, and a thread that follows its pointer file.

    Args:
        model: a scorer's folder, or a pointer file.
        told: called with ("loaded", version's name, its folder) or ("refused", folder, reason).
        asked_by: begins the messages on a wrong `model`.
        engine: of the scorers.
    """

    def __init__(self, model: str, told: Callable[[str, str, str], None], asked_by: str, engine: Engine = None) -> None:
        self.model, self.told, self.asked_by, self.engine = model, told, asked_by, engine
        self.current = load_version(folder_of(model, asked_by), engine=engine)
        self._refused: tuple[str, int] | None = None
        self._ended = threading.Event()
        told("loaded", self.current.name, self.current.folder)

    def follow(self, seconds: float) -> None:
        """Checks the pointer file every `seconds`, on a thread, until `stop`."""
        threading.Thread(target=self._follow, args=(seconds,), daemon=True, name="versions").start()

    def stop(self) -> None:
        self._ended.set()
        self.current.remove()

    def _follow(self, seconds: float) -> None:
        while not self._ended.wait(seconds):
            self.look()

    def look(self) -> None:
        """Loads what the pointer names now. A version that cannot be loaded is reported once; the current version stays."""
        try:
            folder = folder_of(self.model, self.asked_by)
            changed = 0 if "://" in folder else max(os.stat(path).st_mtime_ns for path in self._descriptions(folder))
        except (OSError, UserError) as error:
            self._refuse(self.model, 0, str(error))
            return
        if folder == self.current.folder or self._refused == (folder, changed):
            return
        try:
            version = load_version(folder, self.current, self.engine)
        # Whatever is wrong with the new one must not end the old one.
        except Exception as error:
            self._refuse(folder, changed, f"{error}" if isinstance(error, UserError) else f"{type(error).__name__}: {error}")
            return
        before, self._refused, self.current = self.current, None, version
        before.remove()
        self.told("loaded", version.name, version.folder)

    @staticmethod
    def _descriptions(folder: str) -> list[str]:
        there = [path for path in (join(folder, FILE), join(folder, DELTA)) if os.path.exists(path)]
        return there or [join(folder, FILE)]

    def _refuse(self, folder: str, changed: int, message: str) -> None:
        if self._refused != (folder, changed):
            self._refused = folder, changed
            self.told("refused", folder, message)
