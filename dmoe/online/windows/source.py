"""Lists the complete files of a source, and chooses those of the next window."""

import fnmatch
import glob
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dmoe.config.online_settings import WindowsConfig
from dmoe.data.dataset.files import file_sha256
from dmoe.data.prepare.source.raw_bytes import identity, is_remote
from dmoe.errors import UserError
from dmoe.names import whole_number
from dmoe.storage.paths import PATHS, unreachable

SUCCESS = "_SUCCESS"
UNFINISHED = re.compile(r"[._].*|.*\.(tmp|temp|part|partial|inprogress|crc|filepart)|.*~", re.DOTALL)
"""Names of files that are still being written, or are not logs."""


@dataclass(frozen=True)
class SourceFile:
    """A state of a file. `changed` is its time of change in ns, or the tag of an object; `sha256` is empty until the file is used."""

    name: str
    bytes: int
    changed: int | str
    sha256: str = ""


@dataclass
class Choice:
    """The files chosen for a window.

    Attributes:
        files: the files to use.
        duplicates: files that are left out because they have the bytes of another one.
        events: messages about files: (kind, text).
        told: keys of file states, so that each is reported only once.
    """

    files: list[SourceFile] = field(default_factory=list)
    duplicates: list[SourceFile] = field(default_factory=list)
    events: list[tuple[str, str]] = field(default_factory=list)
    told: list[str] = field(default_factory=list)


def order_key(path: str) -> list[tuple[int, int | str]]:
    """Natural order of whole paths: logs/day_2 before logs/day_10."""
    parts = re.split(r"([0-9]+)", path)
    return [(1, part) if (number := whole_number(part)) is None else (0, number) for part in parts]


def complete_files(source: str, complete: str) -> list[SourceFile]:
    """The complete files of a folder, a glob or a prefix, in natural order; empty if nothing exists yet.

    Args:
        source: local or remote; a remote folder ends in `/`, and a remote glob matches within one folder.
        complete: `renamed` or `success` (`WindowsConfig`); with `success`, direct subfolders are included.

    Raises:
        UserError: the source cannot be reached.
    """
    paths = _remote(source) if is_remote(source) else _local(source, complete)
    found = []
    for path in sorted({path for path in paths if not UNFINISHED.fullmatch(path.rsplit("/", 1)[-1])}, key=order_key):
        if complete == "success" and not PATHS.exists(f"{path.rsplit('/', 1)[0]}/{SUCCESS}"):
            continue
        try:
            found.append(SourceFile(path, *identity(path)))
        except (OSError, UserError):
            # The file was removed after it was listed.
            continue
    return found


def _local(source: str, complete: str) -> list[str]:
    if os.path.isdir(source):
        root = source.rstrip("/") or "/"
        names = glob.glob(glob.escape(root) + "/*") + (glob.glob(glob.escape(root) + "/*/*") if complete == "success" else [])
        return [path for path in names if os.path.isfile(path)]
    if glob.has_magic(source):
        return [path for path in glob.glob(source, recursive=True) if os.path.isfile(path)]
    return [source] if os.path.isfile(source) else []


def _remote(source: str) -> list[str]:
    if PATHS.handler(source) is None:
        raise UserError(f"--source {unreachable(source)}")
    folder, name = source.rsplit("/", 1)
    try:
        names = [path.rstrip("/").rsplit("/", 1)[-1] for path in PATHS.ls(folder + "/")]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"--source {source}: {(error.strerror or str(error))[:200].lower()}") from None
    return [f"{folder}/{one}" for one in names if one and fnmatch.fnmatchcase(one, name or "*") and PATHS.isfile(f"{folder}/{one}")]


class Chooser:
    """Chooses the files of each window, in natural order of their names.

    Args:
        rows_of: path -> approximate number of rows; called if windows are defined by rows.
        time_of: path -> time of the first row in seconds; called if windows are defined by time.
    """

    def __init__(self, settings: WindowsConfig, rows_of: Callable[[str], int], time_of: Callable[[str], float | None]) -> None:
        self.settings, self.rows_of, self.time_of = settings, rows_of, time_of
        self._known: dict[tuple[str, int, int | str], Any] = {}

    def choose(
        self, files: Sequence[SourceFile], taken: Mapping[str, SourceFile], told: set[str], newest: str, ended: bool
    ) -> Choice | None:
        """Chooses the next window; None if its files are not complete yet, and there is nothing to report.

        Args:
            files: the complete files.
            taken: name -> file, for the files of earlier windows.
            told: `Choice.told` of all earlier windows.
            newest: the last file of all windows in natural order.
            ended: whether no further files are expected.
        """
        choice = Choice()
        new = [one for one in files if one.name not in taken]
        for one in files:
            self._tell_if_changed(one, taken.get(one.name), told, choice)
        for one in self._next(new, ended):
            self._take(one, taken, newest, choice)
        return choice if choice.files or choice.duplicates or choice.events or choice.told else None

    def _tell_if_changed(self, now: SourceFile, before: SourceFile | None, told: set[str], choice: Choice) -> None:
        if before is None or (now.bytes, now.changed) == (before.bytes, before.changed):
            return
        key = f"changed {now.name} {now.changed}"
        if key in told:
            return
        choice.told.append(key)
        if _digest(now) != before.sha256:
            choice.events.append(("changed", f"{now.name}: has changed since it was used, and is not used again"))

    def _take(self, one: SourceFile, taken: Mapping[str, SourceFile], newest: str, choice: Choice) -> None:
        try:
            whole = SourceFile(one.name, one.bytes, one.changed, _digest(one))
            if identity(one.name) != (one.bytes, one.changed):
                # The file is still being written: it is used when it no longer changes.
                return
        except (OSError, UserError):
            choice.events.append(("vanished", f"{one.name}: went away before it was used"))
            return
        twin = next((other.name for other in (*taken.values(), *choice.files) if whole.bytes and other.sha256 == whole.sha256), None)
        if twin is not None:
            choice.duplicates.append(whole)
            choice.events.append(("duplicate", f"{one.name}: has the bytes of {twin}, and is not used"))
            return
        if newest and order_key(one.name) < order_key(newest):
            choice.events.append(("late", f"{one.name}: came after {newest}, which follows it"))
        choice.files.append(whole)

    def _next(self, new: list[SourceFile], ended: bool) -> list[SourceFile]:
        size = self.settings.size
        if self.settings.by == "files":
            count = max(int(size), 1)
            return new[:count] if len(new) >= count or ended else []
        if self.settings.by == "rows":
            total = 0
            for number, one in enumerate(new):
                total += self._of(one, self.rows_of)
                if total >= size:
                    return new[: number + 1]
            return new if ended else []
        seconds = {one.name: self._of(one, self.time_of) for one in new}
        intervals = {name: math.floor(at / self.settings.size) for name, at in seconds.items() if at is not None}
        first, last = min(intervals.values(), default=0), max(intervals.values(), default=0)
        # A file without a time, such as one without rows, belongs to the oldest window.
        return [one for one in new if intervals.get(one.name, first) == first] if last > first or ended else []

    def _of(self, one: SourceFile, ask: Callable[[str], Any]) -> Any:
        key = (one.name, one.bytes, one.changed)
        if key not in self._known:
            self._known[key] = ask(one.name)
        return self._known[key]


def _digest(one: SourceFile) -> str:
    """SHA-256 of a local file, or the tag of a remote object, which identifies its contents without a download."""
    return file_sha256(one.name) if not is_remote(one.name) else f"tag:{one.changed}"
