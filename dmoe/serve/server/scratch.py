"""The folder that the worker processes of a server share: full scorers made of deltas, and the versions that answer."""

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from glob import escape, glob
from pathlib import Path

from dmoe.serve.export.delta import read_delta
from dmoe.serve.export.format import FILE
from dmoe.serve.export.materialise import materialise


class Scratch:
    """
    Args:
        folder: a folder that exists and is removed when the server ends; if empty, nothing is shared.
    """

    def __init__(self, folder: str = "") -> None:
        self.folder = folder

    def full(self, delta: str, have: Mapping[str, str]) -> str:
        """Makes a full scorer of a chain of deltas, in a new folder, which the caller removes.

        If another process has made it, its files are linked: the processes share the pages of the tables.

        Args:
            delta, have: see `materialise`.

        Raises:
            UserError: see `materialise`.
        """
        about = read_delta(delta)
        place = tempfile.mkdtemp(prefix=f"dmoe-serve-{about.scorer_sha256[:16] if about else ''}-", dir=self.folder or None)
        try:
            with self._alone():
                if not self._linked(place):
                    made = materialise(delta, place, have)
                    assert made == place
        except BaseException:
            shutil.rmtree(place, ignore_errors=True)
            raise
        return place

    def _linked(self, place: str) -> bool:
        """Whether another process had the same scorer, whose files are now in `place`, too."""
        pattern = f"{escape(place.rpartition('-')[0])}-*"
        for other in glob(pattern) if self.folder else []:
            # The process that made it may remove it meanwhile.
            with suppress(OSError):
                if other != place and os.path.exists(os.path.join(other, FILE)):
                    shutil.copytree(other, place, copy_function=os.link, dirs_exist_ok=True)
                    return True
                continue
            shutil.rmtree(place)
            os.mkdir(place, 0o700)
        return False

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One process at a time: the others then find what it has made. A process that dies lets the next one in."""
        if not self.folder:
            yield
            return
        with open(os.path.join(self.folder, "lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def remember(self, model: str, folder: str) -> None:
        """Notes that a version of a model answers."""
        if self.folder:
            path = self._note(model)
            beside = path.with_suffix(f".{os.getpid()}")
            beside.write_text(folder)
            beside.replace(path)

    def remembered(self, model: str) -> str:
        """The folder of the last version that answered; empty if there is none."""
        with suppress(OSError):
            return self._note(model).read_text() if self.folder else ""
        return ""

    def _note(self, model: str) -> Path:
        return Path(self.folder, f"answers-{hashlib.sha256(model.encode(errors='surrogateescape')).hexdigest()[:16]}")
