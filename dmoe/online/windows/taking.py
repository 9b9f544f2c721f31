"""The part of the loop on rank 0 that needs no model: chooses the files of the next window, and prepares their rows."""

import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial

from dmoe.checkpoint.progress import OnlineState
from dmoe.config.online_settings import OnlineConfig
from dmoe.data.dataset.manifest import Manifest
from dmoe.data.prepare.bad_lines import NoRows
from dmoe.data.prepare.schema import Schema
from dmoe.data.prepare.source.raw_bytes import identity
from dmoe.errors import UserError
from dmoe.json_text import format_json, parse_json
from dmoe.names import show
from dmoe.online.ledger import Ledger
from dmoe.online.vocabulary import first_ids, folder_of, load_ids
from dmoe.online.windows.prepared import Window, count_rows, first_time, prepare, window_folder
from dmoe.online.windows.source import Choice, Chooser, SourceFile, complete_files
from dmoe.storage.paths import inside, write_text

CHOICE = "window.json"


@dataclass
class Taken:
    """A window whose files are chosen.

    Attributes:
        window: the prepared rows; None if there are none, or if they could not be prepared.
        problem: why the rows could not be prepared.
        accepts: number of the quarantined window whose files a user has accepted; 0 for none.
        seconds: stage -> duration.
    """

    number: int
    choice: Choice
    window: Window | None = None
    problem: str = ""
    accepts: int = 0
    seconds: dict[str, float] = field(default_factory=dict)


class Taker:
    """Takes one window after the other from a source.

    Args:
        run: folder of the run.
        source: a folder, glob or prefix.
        model: the manifest from which the model was built.
        state: state in the checkpoint from which the run continues; None for a new run.
        ended: whether to stop waiting for further files; the source then ends when no complete file is left.
        accept: number of a quarantined window whose files become the next window and are trained in spite of alarms; 0 for none.

    Attributes:
        vocabulary, ids: name of the vocabulary with the ids of the model (empty before the first window), and these ids.
    """

    def __init__(
        self,
        run: str,
        source: str,
        schema: Schema,
        settings: OnlineConfig,
        model: Manifest,
        state: OnlineState | None,
        ended: Callable[[], bool],
        accept: int = 0,
    ) -> None:
        self.run, self.source, self.ledger, self.ended = run, source, Ledger(run, state), ended
        self.schema, self.settings, self.model = schema, settings, model
        self.chooser = Chooser(settings.windows, partial(count_rows, schema=schema), partial(first_time, schema=schema))
        self.pending, self.accept = Choice(), self._to_accept(accept)
        self.vocabulary = state["vocabulary"] if state else ""
        self.ids = load_ids(folder_of(run, self.vocabulary), schema) if self.vocabulary else first_ids(schema)
        self._ids_after = self.ids

    def learned(self, window: Window) -> None:
        """Tells that the model was trained on the window that was taken last, and has its ids."""
        self.vocabulary, self.ids = window.vocabulary, self._ids_after

    def next(self) -> Taken | None:
        """Waits for the next window, and prepares it. Returns None if the source has ended.

        Raises:
            UserError: the source cannot be reached.
        """
        number = self.ledger.window
        while True:
            began = time.perf_counter()
            ended = self.ended()
            choice = self._accepted() or self._chosen_before(number) or self._choose(ended)
            if choice is not None:
                break
            if ended:
                return None
            time.sleep(self.settings.windows.poll_seconds)
        for kind, text in choice.events:
            show(f"window {number}: {kind}: {text}", sys.stderr)
        folder = window_folder(self.run, number)
        if _read(inside(folder, CHOICE)) != choice:
            # Removes what an earlier attempt with other files left.
            shutil.rmtree(folder, ignore_errors=True)
            os.makedirs(folder)
            write_text(inside(folder, CHOICE), format_json(asdict(choice)) + "\n")
        taken = Taken(number, choice, accepts=self.accept)
        self.accept = 0
        if any(one.bytes for one in choice.files):
            try:
                newest_good = max((line["window"] for line in self.ledger.good()), default=0)
                arguments = (self.run, number, choice.files, self.schema, self.settings, self.model)
                taken.window, self._ids_after = prepare(*arguments, self.vocabulary, self.ids, newest_good)
            except NoRows:
                # An hour without traffic: files of a header alone.
                pass
            except UserError as error:
                taken.problem = str(error)
        taken.seconds["prepare"] = time.perf_counter() - began
        return taken

    def _to_accept(self, window: int) -> int:
        """Returns the window, or 0 if an earlier start of the same command has already accepted it.

        Raises:
            UserError: the window is not quarantined.
        """
        if not window or any(line.get("accepts") == window for line in self.ledger.lines):
            return 0
        if not any(line["window"] == window and line["state"] == "quarantined" for line in self.ledger.lines):
            raise UserError(f"--accept {window}: no quarantined window of that number; dmoe online status {self.run} lists them")
        return window

    def _accepted(self) -> Choice | None:
        line = next((line for line in self.ledger.lines if line["window"] == self.accept), None)
        return Choice([SourceFile(**one) for one in line["files"]]) if self.accept and line else None

    def _choose(self, ended: bool) -> Choice | None:
        files = complete_files(self.source, self.settings.windows.complete)
        ledger, pending, only_copies = self.ledger, self.pending, True
        while only_copies:
            known = ledger.taken | {one.name: one for one in pending.duplicates}
            found = self.chooser.choose(files, known, ledger.told | set(pending.told), ledger.newest, ended)
            only_copies = found is not None and bool(found.duplicates) and not found.files
            if found is not None:
                news = pending.events + found.events, pending.told + found.told
                pending = Choice(found.files, pending.duplicates + found.duplicates, *news)
        if not pending.files:
            # Duplicates and messages are recorded with the next window that has files.
            self.pending = pending
            return None
        self.pending = Choice()
        return pending

    def _chosen_before(self, number: int) -> Choice | None:
        """The choice of a killed run for this window; None if there is none, or if a file has changed."""
        choice = _read(inside(window_folder(self.run, number), CHOICE))
        if choice is None:
            return None
        for one in choice.files:
            try:
                same = identity(one.name) == (one.bytes, one.changed)
            except (OSError, UserError):
                same = False
            if not same:
                return None
        return choice


def _read(path: str) -> Choice | None:
    """Reads a choice from a file; None if the file does not exist."""
    if not os.path.exists(path):
        return None
    with open(path, "rb") as file:
        kept = parse_json(file.read())
    files, duplicates = ([SourceFile(**one) for one in kept[key]] for key in ("files", "duplicates"))
    return Choice(files, duplicates, [(kind, text) for kind, text in kept["events"]], kept["told"])
