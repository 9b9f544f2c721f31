"""The complete files of a source, and which of them make the next window."""

import fnmatch
import glob
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dmoe.data.dataset.files import file_sha256
from dmoe.data.prepare.source.raw_bytes import identity, is_remote
from dmoe.errors import UserError
from dmoe.names import whole_number
from dmoe.online_settings import WindowsConfig
from dmoe.paths import PATHS, unreachable

SUCCESS = "_SUCCESS"
UNFINISHED = re.compile(r"[._].*|.*\.(tmp|temp|part|partial|inprogress|crc|filepart)|.*~", re.DOTALL)
"""Names of files that someone still writes, or that are no log."""


@dataclass(frozen=True)
class SourceFile:
    """A file in one state. `changed` is the time of change in ns, or an object's tag; `sha256` of its bytes, empty before it is taken."""

    name: str
    bytes: int
    changed: int | str
    sha256: str = ""


@dataclass
class Choice:
    """The files of a window, those that are left out because they are copies, and what is to be told of files: (kind, text); `told` are the
    states of files of which it is told once."""

    files: list[SourceFile] = field(default_factory=list)
    duplicates: list[SourceFile] = field(default_factory=list)
    events: list[tuple[str, str]] = field(default_factory=list)
    told: list[str] = field(default_factory=list)


def order_key(path: str) -> list[tuple[int, int | str]]:
    """Natural order of whole paths: logs/day_2 before logs/day_10."""
    parts = re.split(r"([0-9]+)", path)
    return [(1, part) if (number := whole_number(part)) is None else (0, number) for part in parts]


def complete_files(source: str, complete: str) -> list[SourceFile]:
    """The complete files of a folder, a glob or a prefix, in natural order; none where nothing is there yet.

    Args:
        source: local, or remote; a remote folder ends in `/`, a remote glob is matched within one folder.
        complete: `renamed` or `success` (`WindowsConfig`); with `success` the folders within a folder are looked into as well.

    Raises:
        UserError: the place cannot be reached.
    """
    paths = _remote(source) if is_remote(source) else _local(source, complete)
    found = []
    for path in sorted({path for path in paths if not UNFINISHED.fullmatch(path.rsplit("/", 1)[-1])}, key=order_key):
        if complete == "success" and not PATHS.exists(f"{path.rsplit('/', 1)[0]}/{SUCCESS}"):
            continue
        try:
            found.append(SourceFile(path, *identity(path)))
        except (OSError, UserError):
            # It went away between the listing and the look.
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
        rows_of: rows of a file, about; asked where windows are of rows.
        time_of: seconds of a file's first row; asked where windows are of time.
    """

    def __init__(self, settings: WindowsConfig, rows_of: Callable[[str], int], time_of: Callable[[str], float | None]) -> None:
        self.settings, self.rows_of, self.time_of = settings, rows_of, time_of
        self._known: dict[tuple[str, int, int | str], Any] = {}

    def choose(
        self, files: Sequence[SourceFile], taken: Mapping[str, SourceFile], told: set[str], newest: str, ended: bool
    ) -> Choice | None:
        """The next window; None where its files are not complete yet, and nothing is to be told.

        Args:
            files: that are complete.
            taken: files of earlier windows, by name.
            told: `Choice.told` of all windows before.
            newest: the last file, in natural order, of all windows.
            ended: no further file is waited for.
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
                # Somebody still writes it: it is taken once it rests.
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
        intervals = {one.name: self._interval(one) for one in new}
        first = min(intervals.values(), default=0)
        later = any(interval > first for interval in intervals.values())
        return [one for one in new if intervals[one.name] == first] if later or ended else []

    def _interval(self, one: SourceFile) -> int:
        seconds = self._of(one, self.time_of)
        # A file without a time belongs to the oldest window: it is not to wait for ever.
        return -(1 << 62) if seconds is None else math.floor(seconds / self.settings.size)

    def _of(self, one: SourceFile, ask: Callable[[str], Any]) -> Any:
        key = (one.name, one.bytes, one.changed)
        if key not in self._known:
            self._known[key] = ask(one.name)
        return self._known[key]


def _digest(one: SourceFile) -> str:
    """SHA-256 of a local file; an object's tag tells its contents already, and reading it costs."""
    return file_sha256(one.name) if not is_remote(one.name) else f"tag:{one.changed}"
