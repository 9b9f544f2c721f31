"""The published versions of a model: full scorers and deltas in a local or remote folder, and a pointer file that names the current one.

`TARGET/versions/000012` is the version after window 12, a scorer or a delta (`dmoe.serve.export.delta`). The first line of `TARGET/current`
names the current version; the file is replaced atomically. It needs no torch.
"""

import os
import shutil
from collections.abc import Collection

from dmoe.data.dataset.files import file_sha256
from dmoe.serve.export.delta import DELTA, read_delta
from dmoe.serve.export.format import FILE
from dmoe.serve.pointer import read_pointer
from dmoe.storage.paths import PATHS, join, write_atomic, write_text

POINTER, VERSIONS = "current", "versions"


class PublishedVersions:
    """The versions in a folder, by the names of their folders."""

    def __init__(self, target: str) -> None:
        self.target, self.pointer = target, join(target, POINTER)

    def names(self) -> list[str]:
        """The names of complete versions, oldest first."""
        folder = join(self.target, VERSIONS)
        names = sorted({path.rstrip("/").rsplit("/", 1)[-1] for path in PATHS.ls(folder)}) if PATHS.exists(folder) else []
        return [name for name in names if name.isdigit() and (self.is_full(name) or self._holds(name, DELTA))]

    def current(self) -> str:
        """The version that the pointer file names; empty if there is none."""
        return read_pointer(self.pointer)[0].rsplit("/", 1)[-1] if PATHS.exists(self.pointer) else ""

    def point_to(self, name: str) -> None:
        """Makes a version the current one. Remote stores also replace an object atomically."""
        if "://" not in self.pointer:
            os.makedirs(self.target or ".", exist_ok=True)
        write_text(self.pointer, f"{VERSIONS}/{name}\n")

    def back_to(self, windows: Collection[int]) -> str:
        """Points to the newest version of these windows, and removes later ones. Returns its name; empty if there is none."""
        names = [name for name in self.names() if int(name) in windows]
        if names:
            self.point_to(names[-1])
            self.remove_later()
        return names[-1] if names else ""

    def remove_later(self) -> None:
        """Removes the versions after the current one: their windows were undone."""
        current = self.current()
        for name in self.names():
            if name > current:
                self.remove(name)

    def is_full(self, name: str) -> bool:
        return self._holds(name, FILE)

    def sha256(self, name: str) -> str:
        """SHA-256 of the scorer.json that a version has or makes."""
        delta = read_delta(self._folder(name))
        return file_sha256(join(self._folder(name), FILE)) if delta is None else delta.scorer_sha256

    def chain(self, name: str) -> list[str]:
        """This version and those that it is made from, as far as they are there: deltas, and the full version at the end."""
        found = [name]
        while (delta := read_delta(self._folder(found[-1]))) is not None and delta.parent not in found:
            found.append(delta.parent)
        return found

    def send(self, source: str, name: str, last: str) -> None:
        """Copies the files of a local folder, in place of an incomplete version; `last`, which makes it complete, at the end."""
        self.remove(name)
        files = [os.path.relpath(os.path.join(top, one), source) for top, _, found in os.walk(source) for one in found]
        for one in [*(file for file in files if file != last), last]:
            target = join(self._folder(name), one)
            if "://" not in target:
                os.makedirs(os.path.dirname(target), exist_ok=True)
            with open(join(source, one), "rb") as file, write_atomic(target) as copy:
                shutil.copyfileobj(file, copy)

    def remove(self, name: str) -> None:
        """Removes a version, its description first, so that a partly removed version does not count as complete."""
        for last in (FILE, DELTA):
            if self._holds(name, last):
                PATHS.rm(join(self._folder(name), last))
        if "://" not in self.target:
            shutil.rmtree(self._folder(name), ignore_errors=True)
        else:
            _remove_objects(self._folder(name))

    def remove_old(self, keep_full: int) -> None:
        """Removes the versions before the newest `keep_full` full ones, except the current version and those that it is made from."""
        names, kept = self.names(), self.chain(self.current())
        oldest = min([name for name in names if self.is_full(name)][-keep_full:], default="")
        for name in names:
            if name < oldest and name not in kept:
                self.remove(name)

    def _folder(self, name: str) -> str:
        return join(self.target, VERSIONS, name)

    def _holds(self, name: str, file: str) -> bool:
        return bool(PATHS.exists(join(self._folder(name), file)))


def _remove_objects(folder: str) -> None:
    """Removes all objects below a remote folder."""
    for name in PATHS.ls(folder) if PATHS.exists(folder) else ():
        path = join(folder, name)
        if PATHS.isfile(path):
            PATHS.rm(path)
        else:
            _remove_objects(path)
