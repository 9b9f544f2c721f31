"""The loop over windows: choose files, prepare, test, train, watch, commit. Every rank runs it; rank 0 makes the decisions."""

import gc
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from typing import Any

from dmoe.checkpoint.load import load_checkpoint
from dmoe.checkpoint.progress import OnlineState
from dmoe.checkpoint.writer import CheckpointWriter
from dmoe.data.progress import own_memory_mib
from dmoe.distributed import broadcast_object, on_rank_0, rank
from dmoe.errors import UserError
from dmoe.metrics.evaluation import NotFinite
from dmoe.online import stages, vocabulary, watch
from dmoe.online.ledger import as_lines, committed
from dmoe.online.publish import Publisher, Publishing
from dmoe.online.windows.prepared import Window, remove_old
from dmoe.online.windows.spool import Spool
from dmoe.online.windows.taking import Taken, Taker
from dmoe.online.windows.waiting import meanwhile
from dmoe.processes.alive import note
from dmoe.terminal import Level, tell
from dmoe.train.elastic.exit_codes import Preempted
from dmoe.train.elastic.preemption import Together
from dmoe.train.run.run_dir import RunDir
from dmoe.train.trainer import Trainer


class Loop:
    """The loop of an online run.

    Args:
        state, step: state and step of the checkpoint that the trainer has loaded.
        taker: gives the windows; None on other ranks than 0.
        publisher: publishes versions; None on other ranks than 0, or if no versions are published.
    """

    def __init__(
        self, trainer: Trainer, run: RunDir, state: OnlineState, step: int, taker: Taker | None, publisher: Publisher | None
    ) -> None:
        self.trainer, self.run = trainer, run
        self.settings = trainer.config.online
        session = trainer.session
        parts = (session.sharded, session.tables, session.dense, session.optimizers)
        self.writer = CheckpointWriter(run.path, *parts, trainer.config.train.checkpoint, step)
        self.together = Together(self.writer)
        self.state, self.publishing = state, Publishing(publisher, run)
        self.waits_for_commit: dict[str, Any] | None = None
        if taker is not None:
            self.taker, self.ledger = taker, taker.ledger

    def go(self) -> None:
        """Processes windows until the source has ended, or the run is asked to stop.

        Raises:
            Preempted: on all ranks, the run was asked to stop. The next start repeats the unfinished window.
            UserError: the source or the disk failed, or an alarm ends the run.
        """
        # The present objects live as long as the run, so the collection after each window may skip them.
        gc.collect()
        gc.freeze()
        with self.together:
            if rank() == 0 and self.state["window"]:
                # Publishes a version that a killed run did not finish.
                for line in [line for line in self.ledger.good() if line.get("step") == self.writer.published][-1:]:
                    self.publishing.begin(line)
            while True:
                taken = meanwhile(lambda: self.taker.next(), "waits for a window", self._between)
                if taken is None:
                    break
                self._window(taken)
                # The metrics of a window (64 MiB) and its trace of the model are in reference cycles, which Python collects less often the
                # more objects exist.
                del taken
                gc.collect()
            self.writer.finish()
            self._committed()
            self.publishing.wait()

    def _between(self) -> None:
        """Called between steps, batches and polls: commits a window whose checkpoint is written, and stops if the run was asked to.

        Raises:
            Preempted: on all ranks, the run was asked to stop.
        """
        if self.together.exchange():
            with suppress(UserError):
                self.writer.finish()
            raise Preempted("asked to stop (SIGTERM); start the same command again, and it goes on with the same window")
        self._committed()

    def _window(self, taken: Taken) -> None:
        choice, window = taken.choice, taken.window
        line: dict[str, Any] = {"window": taken.number, "state": "trained", "files": as_lines(choice.files)}
        events = [f"{kind}: {text}" for kind, text in choice.events]
        line |= {"duplicates": as_lines(choice.duplicates), "events": events, "told": choice.told}
        if taken.accepts:
            line["accepts"] = taken.accepts
        alarms = [f"prepare: {taken.problem}"] if taken.problem else []
        tells = self.settings.watch.action == "tell" or taken.accepts > 0
        if window is None:
            line |= {"state": "quarantined" if alarms else "empty", "rows": 0, "alarms": alarms}
        else:
            line |= {"rows": window.rows, "positives": window.manifest.splits["train"].positives, "data": window.figures}
            alarms += self._test_and_learn(line, taken, window, tells)
            if alarms and (not tells or any(alarm.startswith("not finite") for alarm in alarms)):
                self._undo()
                line |= {"state": "quarantined", "alarms": alarms}
            else:
                line |= {"step": self.trainer.progress.step, "alarms": alarms, "notes": self._judged(watch.notes, line)}
                if rank() == 0:
                    self.taker.learned(window)
        if line["state"] == "quarantined":
            self._refuse(line)
        self._commit(line, taken)
        if line["state"] != "trained":
            self._stop_after_too_many()

    def _test_and_learn(self, line: dict[str, Any], taken: Taken, window: Window, tells: bool) -> list[str]:
        """Tests the model on the window, and trains on it if there is no alarm, or alarms are only told. Returns the alarms."""
        began, alarms = time.perf_counter(), []
        note(f"tests window {window.number}")
        try:
            line["test"] = stages.score(self.trainer, window, window.test, self._between)
            alarms += self._judged(partial(watch.judge, of_time=watch.made_of_time(window.manifest)), line)
        except NotFinite as error:
            alarms.append(f"not finite: {error}")
        taken.seconds["test"] = time.perf_counter() - began
        return alarms if alarms and not (tells and "test" in line) else alarms + self._learn(line, taken, window)

    def _learn(self, line: dict[str, Any], taken: Taken, window: Window) -> list[str]:
        """Trains on the window; returns the alarms about the trained model."""
        began = time.perf_counter()
        if self.settings.state_decay < 1:
            stages.decay_states(self.trainer, self.settings.state_decay)
        line |= stages.learn(self.trainer, window, partial(self._trained, window))
        taken.seconds["train"] = time.perf_counter() - began
        began = time.perf_counter()
        note(f"watches window {window.number}")
        try:
            line["after"] = stages.score(self.trainer, window, window.train, self._between, self.settings.watch.check_rows)
        except NotFinite as error:
            return [f"not finite: {error}"]
        line["norms"] = stages.norms(self.trainer)
        taken.seconds["watch"] = time.perf_counter() - began
        return self._judged(watch.judge_learned, line)

    def _judged(self, judge: Callable[..., list[str]], line: dict[str, Any]) -> list[str]:
        """The alarms or notes that rank 0 computes, on every rank."""
        return on_rank_0(lambda: judge(line, self.ledger.good(), self.settings.watch))

    def _refuse(self, line: dict[str, Any]) -> None:
        """Ends the run if `online.watch.action` is stop. The files of the window remain unused, so the next start takes them again.

        Raises:
            UserError: the run ends.
        """
        if self.settings.watch.action == "stop":
            self.writer.finish()
            raise UserError(
                f"{said(line)}\nonline.watch.action is stop: look at its files, and start again; or with --set online.watch.action=tell"
            )

    def _stop_after_too_many(self) -> None:
        count = broadcast_object(self.ledger.in_a_row() if rank() == 0 else None)
        if count >= self.settings.watch.most_in_a_row:
            self.writer.finish()
            self._committed()
            self.publishing.wait()
            raise UserError(
                f"{count} windows in a row are quarantined (online.watch.most_in_a_row): dmoe online status {self.run.path} tells why;"
                " take one back with --accept WINDOW, or start again to go on with the next"
            )

    def _trained(self, window: Window) -> None:
        note(f"trains on window {window.number}", self.trainer.progress.step)
        self._between()

    def _undo(self) -> None:
        """Restores the model of the last checkpoint, if it was trained since."""
        self.writer.finish()
        session, step = self.trainer.session, self.writer.published
        assert step is not None
        if self.trainer.progress.step != step:
            folder = self.run.checkpoint(step)
            load_checkpoint(folder, session.sharded, session.tables, session.dense, session.optimizers)
            self.trainer.load(folder)

    def _commit(self, line: dict[str, Any], taken: Taken) -> None:
        """Adds the window to the ledger and starts its checkpoint, after the previous checkpoint is finished."""
        self.writer.finish()
        self._committed()
        line["seconds"] = {key: round(value, 3) for key, value in taken.seconds.items()}
        line["done"], line["memory_mb"] = round(time.time(), 3), own_memory_mib()
        state = None
        if rank() == 0:
            self.ledger.add(line)
            state = self.ledger.state(self.taker.vocabulary)
        self.state = broadcast_object(state)
        progress = self.trainer.progress
        progress.schedule, progress.online = self.trainer.schedule.state(), self.state
        self.writer.save(asdict(progress))
        self.waits_for_commit = line
        if rank() == 0:
            test: dict[str, Any] = {
                f"test_{name}": value for name, value in (line.get("test") or {}).items() if isinstance(value, int | float)
            }
            level: Level = "warning" if line.get("alarms") else "info"
            tell(said(line), level, "window", window=line["window"], state=line["state"], rows=line["rows"], **test)
        self._committed()

    def _committed(self) -> None:
        """When the checkpoint of a window is written: publishes a version, and removes files that are no longer needed."""
        if self.waits_for_commit is None or self.writer.under_way:
            return
        line, self.waits_for_commit = self.waits_for_commit, None
        if rank() == 0:
            if line["state"] == "trained":
                self.publishing.begin(line)
                Spool.forget(self.run.path, [one["name"] for one in line["files"]])
            names = {state["vocabulary"] for _, state in committed(self.run.path)}
            vocabulary.remove_old(self.run.path, names | {self.state["vocabulary"]})
            newest_good = max((one["window"] for one in self.ledger.good()), default=0)
            remove_old(self.run.path, line["window"], self.settings.windows.keep, newest_good)


def said(line: dict[str, Any]) -> str:
    """A line about a window, followed by a line for each alarm and note."""
    test = line.get("test") or {}
    figures = "".join(f"  {name} {test[name]:.4f}" for name in ("auc", "ne", "calibration", "cec") if test.get(name) is not None)
    ids = line.get("data", {}).get("ids")
    changes = f"  {ids['born']:,} ids born, {ids['evicted']:,} evicted" if ids else ""
    alarms = "".join(f"\n  {alarm}" for alarm in (*line.get("alarms", ()), *line.get("notes", ())))
    return f"window {line['window']}: {line['state']}: {line['rows']:,} rows{figures}{changes}{alarms}"
