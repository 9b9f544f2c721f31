"""Publishes versions of the model: full scorers and deltas. A pointer file is replaced atomically, and old versions are removed.

`TARGET/versions/000012` is the version after window 12, a scorer or a delta (`dmoe.serve.export.delta`). The first line of `TARGET/current`
names the current version. `RUN/published/000012` is the last version as a full scorer. The next one is compared with it byte by byte, so
the sharding plan has no influence on deltas.
"""

import multiprocessing
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from dmoe.checkpoint.index import Index
from dmoe.config.config import Config
from dmoe.data.dataset.compatibility import model_inputs
from dmoe.data.dataset.manifest import load_manifest
from dmoe.json_text import format_json
from dmoe.names import show
from dmoe.online.status import LOG
from dmoe.online.vocabulary import folder_of
from dmoe.processes.orphans import end_with
from dmoe.serve.export.card import Card, make_card
from dmoe.serve.export.delta import DELTA, Unlike, bytes_of, make_delta, read_delta
from dmoe.serve.export.export import dense_parameters, export_checkpoint
from dmoe.serve.export.format import FILE, digest_of
from dmoe.storage.paths import PATHS, append_text, inside, join, write_atomic, write_text
from dmoe.train.run.run_dir import RunDir

POINTER, VERSIONS = "current", "versions"


def _begin_beside(parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with(parent, 0)
    import torch

    torch.set_num_threads(1)


class Publisher:
    """Publishes the versions of a run.

    Args:
        target: folder for versions, local or remote.
        run: folder of the run.
    """

    def __init__(self, target: str, run: str, config: Config) -> None:
        self.target, self.run, self.config, self.settings = target, run, config, config.online.versions
        self._beside: ProcessPoolExecutor | None = None

    def due(self, now: float) -> bool:
        """Whether a new version is due at time `now`, in seconds since 1970."""
        last = self.names()[-1:]
        if not last or not self.settings.minutes:
            return True
        path = inside(self.run, LOG)
        return not os.path.exists(path) or now - os.path.getmtime(path) >= self.settings.minutes * 60

    def names(self) -> list[str]:
        """The names of complete versions, oldest first."""
        folder = join(self.target, VERSIONS)
        names = sorted({path.rstrip("/").rsplit("/", 1)[-1] for path in PATHS.ls(folder)}) if PATHS.exists(folder) else []
        return [name for name in names if name.isdigit() and (self._is_full(name) or self._holds(name, DELTA))]

    def current(self) -> str:
        """The version that the pointer file names; empty if there is none."""
        path = join(self.target, POINTER)
        if not PATHS.exists(path):
            return ""
        with PATHS.open(path, "r") as file:
            return str(file.readline()).strip().rsplit("/", 1)[-1]

    def publish(
        self, window: int, checkpoint: str, vocabulary: str, complete: float | None = None, figures: Mapping[str, Any] | None = None
    ) -> dict[str, Any] | None:
        """Makes the version of a checkpoint and moves the pointer to it. An incomplete version of a killed run is made again.

        Args:
            window: number of the window.
            checkpoint: folder of the checkpoint.
            vocabulary: name of the vocabulary with the ids of the checkpoint.
            complete: when the last file of the window was complete, in seconds since 1970.
            figures: test metrics of the window, for the model card.

        Returns:
            a description of the version, with its size and that of a full version; None if the version is already current.

        Raises:
            UserError: the version cannot be written, or a weight is not finite or too large for its type.
        """
        name = f"{window:06d}"
        if self.current() == name and name in self.names():
            return None
        began = time.time()
        new = inside(self.run, "published", name)
        shutil.rmtree(new, ignore_errors=True)
        os.makedirs(os.path.dirname(new), exist_ok=True)
        self.export(checkpoint, vocabulary, new, figures or {})
        if self.settings.onnx:
            self._add_graph(new)
        made = self._make(name, new)
        write_text_anywhere(join(self.target, POINTER), f"{VERSIONS}/{name}\n")
        for other in os.listdir(os.path.dirname(new)):
            if other != name:
                shutil.rmtree(inside(self.run, "published", other))
        self._forget()
        now = time.time()
        told = {"version": name, **made, "seconds": round(now - began, 3), "done": round(now, 3)}
        if complete is not None:
            told["freshness"] = round(now - complete, 3)
        append_text(inside(self.run, LOG), format_json(told) + "\n")
        return told

    def export(self, checkpoint: str, vocabulary: str, output: str, figures: Mapping[str, Any]) -> None:
        """Writes the full scorer of a checkpoint, with its model card."""
        data = folder_of(self.run, vocabulary)
        manifest = load_manifest(data)

        def card_of(index: Index) -> Card:
            return make_card(self.run, self.config, manifest, index, dense_parameters(checkpoint), figures)

        inputs = model_inputs(self.config.data, manifest)
        export_checkpoint(checkpoint, self.config, manifest, inputs, data, output, self.settings.rows, spare=True, card_of=card_of)

    def back_to(self, window: int) -> str:
        """Moves the pointer to the newest version of this window or an earlier one. Returns its name; empty if there is none."""
        names = [name for name in self.names() if int(name) <= window]
        if names:
            write_text_anywhere(join(self.target, POINTER), f"{VERSIONS}/{names[-1]}\n")
        return names[-1] if names else ""

    def _add_graph(self, new: str) -> None:
        """Adds ONNX files to a scorer, in another process, because tracing changes global state of the process that is training."""
        from dmoe.serve.portable.export import add_graph, missing_packages

        if missing_packages():
            return
        if self._beside is None:
            begin = (os.getpid(),)
            self._beside = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=_begin_beside, initargs=begin)
        published = self.current()
        self._beside.submit(add_graph, new, inside(self.run, "published", published) if published else "").result()

    def _make(self, name: str, new: str) -> dict[str, Any]:
        """Writes a version as a delta if possible, else in full."""
        full_bytes, parent = bytes_of(new), self.current()
        old = inside(self.run, "published", parent) if parent else ""
        parent_there = parent in self.names() and os.path.exists(join(old, FILE)) and self._sha256(parent) == digest_of(join(old, FILE))
        if parent_there and self._deltas_behind(parent) < self.settings.full_every - 1:
            beside = inside(self.run, "published", f"{name}.delta")
            shutil.rmtree(beside, ignore_errors=True)
            try:
                delta = make_delta(old, new, parent, beside)
                self._remove(name)
                self._send(beside, name, DELTA)
                size = bytes_of(beside)
                return {"kind": "delta", "parent": parent, "bytes": size, "full_bytes": full_bytes, "rows": sum(delta.changed.values())}
            except Unlike:
                pass
            finally:
                shutil.rmtree(beside, ignore_errors=True)
        self._remove(name)
        self._send(new, name, FILE)
        return {"kind": "full", "bytes": full_bytes, "full_bytes": full_bytes}

    def _send(self, source: str, name: str, last: str) -> None:
        files = [os.path.relpath(os.path.join(top, one), source) for top, _, found in os.walk(source) for one in found]
        for one in [*(file for file in files if file != last), last]:
            target = join(self.target, VERSIONS, name, one)
            if "://" not in target:
                os.makedirs(os.path.dirname(target), exist_ok=True)
            with open(join(source, one), "rb") as file, write_atomic(target) as copy:
                shutil.copyfileobj(file, copy)

    def _forget(self) -> None:
        """Removes the versions before the oldest full version to keep."""
        names = self.names()
        full = [name for name in names if self._is_full(name)]
        if len(full) <= self.settings.keep_full:
            return
        oldest = full[-self.settings.keep_full]
        for name in names:
            if name < oldest and name != self.current():
                self._remove(name)

    def _remove(self, name: str) -> None:
        """Removes a version, its description first, so that a partly removed version does not count as complete."""
        folder = join(self.target, VERSIONS, name)
        for last in (FILE, DELTA):
            if self._holds(name, last):
                PATHS.rm(join(folder, last))
        if "://" not in folder:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            _remove_objects(folder)

    def _holds(self, name: str, file: str) -> bool:
        return bool(PATHS.exists(join(self.target, VERSIONS, name, file)))

    def _is_full(self, name: str) -> bool:
        return self._holds(name, FILE)

    def _sha256(self, name: str) -> str:
        folder = join(self.target, VERSIONS, name)
        delta = read_delta(folder)
        return digest_of(join(folder, FILE)) if delta is None else delta.scorer_sha256

    def _deltas_behind(self, name: str) -> int:
        """The number of deltas from the last full version to this one."""
        count = 0
        while (delta := read_delta(join(self.target, VERSIONS, name))) is not None:
            name, count = delta.parent, count + 1
        return count


def _remove_objects(folder: str) -> None:
    """Removes all objects below a remote folder."""
    for name in PATHS.ls(folder) if PATHS.exists(folder) else ():
        path = join(folder, name)
        if PATHS.isfile(path):
            PATHS.rm(path)
        else:
            _remove_objects(path)


def write_text_anywhere(path: str, text: str) -> None:
    """Like `write_text`, but creates the folder. Remote stores also replace an object atomically."""
    if "://" not in path:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    write_text(path, text)


class Publishing:
    """Publishes on a thread that reads the files of a checkpoint, while training continues."""

    def __init__(self, publisher: Publisher | None, run: RunDir) -> None:
        self.publisher, self.run = publisher, run
        self._thread: threading.Thread | None = None
        self._failed: list[BaseException] = []

    def begin(self, line: Mapping[str, Any]) -> None:
        """Starts to publish the model of a window, if a version is due. First waits for the previous version, which needs its checkpoint.

        Raises:
            UserError: the previous version could not be made.
        """
        self.wait()
        if self.publisher is not None and self.publisher.due(time.time()):
            self._thread = threading.Thread(target=self._publish, args=(line,), daemon=True, name="publish")
            self._thread.start()

    def wait(self) -> None:
        """Waits for the version that is being published.

        Raises:
            UserError: the version could not be made.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._failed:
            raise self._failed.pop()

    def _publish(self, line: Mapping[str, Any]) -> None:
        assert self.publisher is not None
        changed = [one["changed"] / 1e9 for one in line["files"] if isinstance(one["changed"], int)]
        checkpoint, vocabulary = self.run.checkpoint(line["step"]), f"{line['window']:06d}"
        try:
            made = self.publisher.publish(line["window"], checkpoint, vocabulary, max(changed, default=None), line.get("test"))
        except BaseException as error:
            self._failed.append(error)
            return
        if made:
            size = f"{made['bytes']:,} bytes of {made['full_bytes']:,}"
            show(f"version {made['version']}: {made['kind']}, {size}, in {made['seconds']:.1f} s", sys.stderr)
