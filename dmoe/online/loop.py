"""The loop over windows: choose, prepare, test, train, watch, commit. Every rank runs it; rank 0 decides."""

import os
import shutil
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from dmoe.alive import note
from dmoe.checkpoint.load import load_checkpoint
from dmoe.checkpoint.progress import OnlineState
from dmoe.checkpoint.writer import CheckpointWriter
from dmoe.data.dataset.manifest import Manifest
from dmoe.data.prepare.schema import Schema
from dmoe.data.prepare.source.raw_bytes import identity
from dmoe.distributed import broadcast_object, rank
from dmoe.errors import UserError
from dmoe.json_text import format_json, parse_json
from dmoe.metrics.evaluation import NotFinite
from dmoe.names import show
from dmoe.online import stages, vocabulary
from dmoe.online.ids import FeatureIds
from dmoe.online.ledger import Ledger, as_lines, committed
from dmoe.online.prepared import Window, count_rows, first_time, prepare, remove_old, window_folder
from dmoe.online.publish import Publisher
from dmoe.online.source import Choice, Chooser, SourceFile, complete_files
from dmoe.online.waiting import meanwhile
from dmoe.paths import inside, write_text
from dmoe.train.elastic.exit_codes import Preempted
from dmoe.train.elastic.preemption import Together
from dmoe.train.run.run_dir import RunDir
from dmoe.train.trainer import Trainer

CHOICE = "window.json"


@dataclass
class Taken:
    """A window whose files are chosen, and its rows where these could be prepared; `problem` says why they could not."""

    number: int
    choice: Choice
    window: Window | None = None
    problem: str = ""
    seconds: dict[str, float] = field(default_factory=dict)


class Loop:
    """
    Args:
        source: a folder, glob or prefix.
        schema: by which the windows are read.
        model: the manifest that the trainer's model is built from.
        state: of the checkpoint that the trainer has loaded.
        once: end when the source has no complete file left.
        publisher: on rank 0, where versions are published.
    """

    def __init__(
        self,
        trainer: Trainer,
        run: RunDir,
        source: str,
        schema: Schema,
        model: Manifest,
        state: OnlineState,
        step: int,
        once: bool,
        publisher: Publisher | None,
    ) -> None:
        self.trainer, self.run, self.source, self.schema, self.model, self.once = trainer, run, source, schema, model, once
        self.settings = trainer.config.online
        session = trainer.session
        parts = (session.sharded, session.tables, session.dense, session.optimizers)
        self.writer = CheckpointWriter(run, *parts, trainer.config.train.checkpoint, step)
        self.together = Together(self.writer)
        self.state, self.publisher = state, publisher
        self.publishing: threading.Thread | None = None
        self.failed: list[BaseException] = []
        self.waits_for_commit: dict[str, Any] | None = None
        self.number = state["window"] + 1
        if rank() == 0:
            self.ledger = Ledger(run.path, state)
            self.chooser = Chooser(self.settings.windows, self._rows_of, self._time_of)
            self.pending = Choice()
            self.candidate: dict[str, FeatureIds] = {}
            self.ids: Mapping[str, FeatureIds] = vocabulary.first_ids(schema)
            if state["vocabulary"]:
                self.ids = vocabulary.load_ids(vocabulary.folder_of(run.path, state["vocabulary"]), schema)

    def go(self) -> None:
        """Takes windows until there are none (`once`), or until the run is asked to stop.

        Raises:
            Preempted: on all ranks, asked to stop; what was done of the window under way is done again by the next start.
            UserError: the source, the disk, or an alarm that stops.
        """
        with self.together:
            if rank() == 0 and self.state["window"]:
                # The version that a killed run had not finished.
                self._publish([line for line in self.ledger.good() if line.get("step") == self.writer.published][-1:])
            while True:
                taken = meanwhile(self._next, "waits for a window", self._between)
                if taken is None:
                    break
                self._window(taken)
            self.writer.finish()
            self._committed()
            self._published(wait=True)

    def _between(self) -> None:
        """Between two steps, batches or looks: publishes a checkpoint that is written, and ends where somebody asked for it."""
        if self.together.exchange():
            with suppress(UserError):
                self.writer.finish()
            raise Preempted("asked to stop (SIGTERM); start the same command again, and it goes on with the same window")
        self._committed()

    # On rank 0, in a thread

    def _next(self) -> Taken | None:
        """Waits for the next window, and prepares it; None at the end."""
        number = self.ledger.window
        while True:
            began = time.perf_counter()
            choice = self._chosen_before(number) or self._choose(ended=self.once)
            if choice is not None:
                break
            if self.once:
                return None
            time.sleep(self.settings.windows.poll_seconds)
        for kind, text in choice.events:
            show(f"window {number}: {kind}: {text}", sys.stderr)
        folder = window_folder(self.run.path, number)
        if not os.path.exists(inside(folder, CHOICE)):
            # What an attempt with other files left is no part of this one.
            shutil.rmtree(folder, ignore_errors=True)
            os.makedirs(folder)
            write_text(inside(folder, CHOICE), format_json(asdict(choice)) + "\n")
        taken = Taken(number, choice)
        if any(one.bytes for one in choice.files):
            try:
                arguments = (self.run.path, number, choice.files, self.schema, self.settings, self.model)
                taken.window, self.candidate = prepare(*arguments, self.state["vocabulary"], self.ids)
            except UserError as error:
                taken.problem = str(error)
        taken.seconds["prepare"] = time.perf_counter() - began
        return taken

    def _choose(self, ended: bool) -> Choice | None:
        files = complete_files(self.source, self.settings.windows.complete)
        ledger, pending = self.ledger, self.pending
        known = ledger.taken | {one.name: one for one in pending.duplicates}
        found = self.chooser.choose(files, known, ledger.told | set(pending.told), ledger.newest, ended)
        if found is not None:
            news = pending.events + found.events, pending.told + found.told
            pending = Choice(found.files, pending.duplicates + found.duplicates, *news)
        if not pending.files:
            # Copies and news wait for a window that has rows.
            self.pending = pending
            return None
        self.pending = Choice()
        return pending

    def _chosen_before(self, number: int) -> Choice | None:
        """What a run that was killed had chosen for this window, where the files are still the same."""
        path = inside(window_folder(self.run.path, number), CHOICE)
        if not os.path.exists(path):
            return None
        with open(path, "rb") as file:
            kept = parse_json(file.read())
        files, duplicates = ([SourceFile(**one) for one in kept[key]] for key in ("files", "duplicates"))
        choice = Choice(files, duplicates, [(kind, text) for kind, text in kept["events"]], kept["told"])
        for one in choice.files:
            try:
                same = identity(one.name) == (one.bytes, one.changed)
            except (OSError, UserError):
                same = False
            if not same:
                os.remove(path)
                return None
        return choice

    def _rows_of(self, path: str) -> int:
        return count_rows(path, self.schema)

    def _time_of(self, path: str) -> float | None:
        return first_time(path, self.schema)

    # On every rank

    def _window(self, taken: Taken) -> None:
        line: dict[str, Any] = {"window": taken.number, "state": "trained", "files": as_lines(taken.choice.files)}
        choice = taken.choice
        events = [f"{kind}: {text}" for kind, text in choice.events]
        line |= {"duplicates": as_lines(choice.duplicates), "events": events, "told": choice.told}
        window = taken.window
        alarms = [f"prepare: {taken.problem}"] if taken.problem else []
        if window is None:
            line |= {"state": "quarantined" if alarms else "empty", "rows": 0, "alarms": alarms}
            self._commit(line, taken, self.state["vocabulary"])
            return
        line |= {"rows": window.rows, "positives": window.manifest.splits["train"].positives, "data": window.figures}
        began = time.perf_counter()
        note(f"tests window {window.number}")
        try:
            line["test"] = stages.score(self.trainer, window, window.test, self._between)
        except NotFinite as error:
            alarms.append(f"not finite: {error}")
        taken.seconds["test"] = time.perf_counter() - began
        if not alarms:
            began = time.perf_counter()
            if self.settings.state_decay < 1:
                stages.decay_states(self.trainer, self.settings.state_decay)
            line |= stages.learn(self.trainer, window, partial(self._trained, window))
            taken.seconds["train"] = time.perf_counter() - began
        if alarms:
            self._undo()
            line |= {"state": "quarantined", "alarms": alarms}
            self._commit(line, taken, self.state["vocabulary"])
            return
        line["step"] = self.trainer.progress.step
        if rank() == 0:
            self.ids = self.candidate
        self._commit(line, taken, window.vocabulary)

    def _trained(self, window: Window) -> None:
        note(f"trains on window {window.number}", self.trainer.progress.step)
        self._between()

    def _undo(self) -> None:
        """Back to the model of the last checkpoint, where a step was made since."""
        self.writer.finish()
        session, step = self.trainer.session, self.writer.published
        assert step is not None
        if self.trainer.progress.step != step:
            folder = self.run.checkpoint(step)
            load_checkpoint(folder, session.sharded, session.tables, session.dense, session.optimizers)
            self.trainer.load(folder)

    def _commit(self, line: dict[str, Any], taken: Taken, name: str) -> None:
        """Begins the checkpoint whose index makes the window done."""
        line["seconds"] = {key: round(value, 3) for key, value in taken.seconds.items()}
        line["done"] = round(time.time(), 3)
        state = None
        if rank() == 0:
            self.ledger.add(line)
            state = self.ledger.state(name)
        self.state = broadcast_object(state)
        progress = self.trainer.progress
        progress.schedule, progress.online = self.trainer.schedule.state(), self.state
        self.writer.save(asdict(progress))
        self.waits_for_commit = line
        if rank() == 0:
            show(said(line), sys.stderr)
        self._committed()

    def _committed(self) -> None:
        """What follows once the checkpoint of a window is there."""
        if self.waits_for_commit is None or self.writer.under_way:
            return
        line, self.waits_for_commit = self.waits_for_commit, None
        if rank() == 0:
            self._publish([line] if line["state"] == "trained" else [])
            names = {state["vocabulary"] for _, state in committed(self.run.path)}
            vocabulary.remove_old(self.run.path, names | {self.state["vocabulary"]})
            remove_old(self.run.path, line["window"], self.settings.windows.keep)

    def _publish(self, lines: list[dict[str, Any]]) -> None:
        """Begins to publish a window's model, on a thread that reads its checkpoint: training goes on meanwhile."""
        if self.publisher is None or not lines:
            return
        self._published(wait=True)
        line = lines[0]
        if not self.publisher.due(time.time()):
            return
        checkpoint, name = self.run.checkpoint(line["step"]), f"{line['window']:06d}"
        changed = [one["changed"] / 1e9 for one in line["files"] if isinstance(one["changed"], int)]

        def publish() -> None:
            assert self.publisher is not None
            try:
                made = self.publisher.publish(line["window"], checkpoint, name, max(changed, default=None))
            except BaseException as error:
                self.failed.append(error)
                return
            if made:
                size = f"{made['bytes']:,} bytes of {made['full_bytes']:,}"
                show(f"version {made['version']}: {made['kind']}, {size}, in {made['seconds']:.1f} s", sys.stderr)

        self.publishing = threading.Thread(target=publish, daemon=True, name="publish")
        self.publishing.start()

    def _published(self, wait: bool) -> None:
        """Raises what publishing has ended with; waits for its end where told to."""
        if self.publishing is not None and (wait or not self.publishing.is_alive()):
            self.publishing.join()
            self.publishing = None
        if self.failed:
            raise self.failed.pop()


def said(line: dict[str, Any]) -> str:
    """A window in one line."""
    test = line.get("test") or {}
    figures = "".join(f"  {name} {test[name]:.4f}" for name in ("auc", "ne", "calibration", "cec") if test.get(name) is not None)
    ids = line.get("data", {}).get("ids")
    changes = f"  {ids['born']:,} ids born, {ids['evicted']:,} evicted" if ids else ""
    alarms = "".join(f"\n  {alarm}" for alarm in line.get("alarms", ()))
    return f"window {line['window']}: {line['state']}: {line['rows']:,} rows{figures}{changes}{alarms}"
