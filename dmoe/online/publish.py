"""Publishes versions of the model: exports a checkpoint, and sends it in full or as a delta (`dmoe.online.versions`).

`RUN/published/000012` is the last version as a full scorer. The next one is compared with it byte by byte, so the sharding plan has no
influence on deltas.
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
from dmoe.data.dataset.files import file_sha256
from dmoe.data.dataset.manifest import load_manifest
from dmoe.errors import UserError
from dmoe.json_text import format_json
from dmoe.names import show
from dmoe.online.status import LOG, published_by
from dmoe.online.versions import PublishedVersions
from dmoe.online.vocabulary import folder_of
from dmoe.processes.orphans import end_with
from dmoe.serve.export.card import Card, make_card
from dmoe.serve.export.delta import DELTA, Unlike, bytes_of, make_delta
from dmoe.serve.export.export import dense_parameters, export_checkpoint
from dmoe.serve.export.format import FILE
from dmoe.storage.paths import append_text, inside, join
from dmoe.train.run.run_dir import RunDir


def _begin_beside(parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with(parent, 0)
    import torch

    torch.set_num_threads(1)


def check_target(target: str, run: str) -> None:
    """Checks that the current version in a folder, if any, is of this run. Versions are named after windows, which another run counts too.

    Raises:
        UserError: it is of another run.
    """
    versions = PublishedVersions(target)
    current = versions.current()
    if current not in versions.names() or current in (one["version"] for one in published_by(run)):
        return
    # A run that was killed may not have noted its last version.
    kept = inside(run, "published", current, FILE)
    if not os.path.exists(kept) or file_sha256(kept) != versions.sha256(current):
        raise UserError(f"--publish {target}: its current version {current} is of another run; give another folder, or remove its versions")


class Publisher:
    """Publishes the versions of a run.

    Args:
        target: folder for versions, local or remote.
        run: folder of the run.
    """

    def __init__(self, target: str, run: str, config: Config) -> None:
        self.versions, self.run, self.config, self.settings = PublishedVersions(target), run, config, config.online.versions
        self._beside: ProcessPoolExecutor | None = None

    def due(self, now: float) -> bool:
        """Whether a new version is due at time `now`, in seconds since 1970."""
        if not self.settings.minutes or not self.versions.names():
            return True
        path = inside(self.run, LOG)
        return not os.path.exists(path) or now - os.path.getmtime(path) >= self.settings.minutes * 60

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
            a description of the version, with its size and that of a full version; None if the version is already current, or there and
            made current again.

        Raises:
            UserError: the version cannot be written, or a weight is not finite or too large for its type.
        """
        name = f"{window:06d}"
        if self.versions.current() == name and name in self.versions.names():
            return None
        began = time.time()
        new = inside(self.run, "published", name)
        shutil.rmtree(new, ignore_errors=True)
        os.makedirs(os.path.dirname(new), exist_ok=True)
        self.export(checkpoint, vocabulary, new, figures or {})
        if self.settings.onnx:
            self._add_graph(new)
        # After a rollback, the version of an earlier window may be there.
        there = name in self.versions.names() and name in (one["version"] for one in published_by(self.run))
        same = there and self.versions.sha256(name) == file_sha256(join(new, FILE))
        told = None
        if not same:
            made = self._make(name, new)
            now = time.time()
            told = {"version": name, **made, "seconds": round(now - began, 3), "done": round(now, 3)}
            if complete is not None:
                told["freshness"] = round(now - complete, 3)
            # Before the pointer names it: the current version is always one that the run has noted.
            append_text(inside(self.run, LOG), format_json(told) + "\n")
        self.versions.point_to(name)
        for other in os.listdir(os.path.dirname(new)):
            if other != name:
                shutil.rmtree(inside(self.run, "published", other))
        self.versions.remove_later()
        self.versions.remove_old(self.settings.keep_full)
        return told

    def export(self, checkpoint: str, vocabulary: str, output: str, figures: Mapping[str, Any]) -> None:
        """Writes the full scorer of a checkpoint, with its model card."""
        data = folder_of(self.run, vocabulary)
        manifest = load_manifest(data)

        def card_of(index: Index) -> Card:
            return make_card(self.run, self.config, manifest, index, dense_parameters(checkpoint), figures)

        inputs = model_inputs(self.config.data, manifest)
        export_checkpoint(checkpoint, self.config, manifest, inputs, data, output, self.settings.rows, spare=True, card_of=card_of)

    def _add_graph(self, new: str) -> None:
        """Adds ONNX files to a scorer, in another process, because tracing changes global state of the process that is training."""
        from dmoe.serve.portable.export import add_graph, missing_packages

        if missing_packages():
            return
        if self._beside is None:
            begin = (os.getpid(),)
            self._beside = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=_begin_beside, initargs=begin)
        published = self.versions.current()
        self._beside.submit(add_graph, new, inside(self.run, "published", published) if published else "").result()

    def _make(self, name: str, new: str) -> dict[str, Any]:
        """Writes a version as a delta if possible, else in full."""
        full_bytes, parent, versions = bytes_of(new), self.versions.current(), self.versions
        old = inside(self.run, "published", parent) if parent else ""
        there = (
            parent < name
            and parent in versions.names()
            and os.path.exists(join(old, FILE))
            and versions.sha256(parent) == file_sha256(join(old, FILE))
        )
        if there and len(versions.chain(parent)) < self.settings.full_every:
            beside = inside(self.run, "published", f"{name}.delta")
            shutil.rmtree(beside, ignore_errors=True)
            try:
                delta = make_delta(old, new, parent, beside)
                versions.send(beside, name, DELTA)
                size = bytes_of(beside)
                return {"kind": "delta", "parent": parent, "bytes": size, "full_bytes": full_bytes, "rows": sum(delta.changed.values())}
            except Unlike:
                pass
            finally:
                shutil.rmtree(beside, ignore_errors=True)
        versions.send(new, name, FILE)
        return {"kind": "full", "bytes": full_bytes, "full_bytes": full_bytes}


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
