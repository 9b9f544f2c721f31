"""The ledger: a file with a line of JSON for each window. It needs no torch.

The index of a checkpoint records the valid length of the ledger. A line is written before that index; lines beyond the length in the newest
valid index are ignored.
"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from dmoe.checkpoint.index import read_index
from dmoe.checkpoint.of_run import folder_of, steps_in
from dmoe.checkpoint.progress import OnlineState
from dmoe.errors import UserError
from dmoe.json_text import defined, format_json, parse_json
from dmoe.online.windows.source import SourceFile, order_key
from dmoe.storage.paths import append_text, inside, write_text

FILE = "ledger.jsonl"


class Ledger:
    """The ledger of a local run.

    Args:
        run: folder of the run.
        state: state in the checkpoint from which the run continues; None for a new run.
        cut: whether to remove later lines from the file; readers pass False.

    Attributes:
        lines: entries of all windows, oldest first.
        taken: name -> file, for the files of all windows and their duplicates.
        told: keys of file states that were already reported.
        newest: the last file in natural order.

    Raises:
        UserError: the file does not match the digest in the checkpoint.
    """

    def __init__(self, run: str, state: OnlineState | None, cut: bool = True) -> None:
        self.path = inside(run, FILE)
        length, expected = (state["ledger_bytes"], state["ledger_sha256"]) if state else (0, hashlib.sha256().hexdigest())
        text = b""
        if os.path.exists(self.path):
            with open(self.path, "rb") as file:
                text = file.read(length)
                longer = bool(file.read(1))
        else:
            longer = False
        self._digest, self._bytes = hashlib.sha256(text), len(text)
        if self._digest.hexdigest() != expected:
            raise UserError(f"{self.path}: is not the ledger of this run's checkpoint (its first {length:,} bytes differ); copy it back")
        if longer and cut:
            write_text(self.path, text.decode())
        self.lines: list[dict[str, Any]] = [parse_json(line) for line in text.splitlines()]
        self.taken: dict[str, SourceFile] = {}
        self.told: set[str] = set()
        self.newest = ""
        for line in self.lines:
            self._know(line)

    def _know(self, line: dict[str, Any]) -> None:
        for one in (*line.get("files", ()), *line.get("duplicates", ())):
            self.taken[one["name"]] = SourceFile(**one)
            self.newest = max(self.newest, one["name"], key=order_key) if self.newest else one["name"]
        self.told.update(line.get("told", ()))

    @property
    def window(self) -> int:
        """The number of the next window; the first is 1."""
        return max((line["window"] for line in self.lines), default=0) + 1

    def good(self) -> list[dict[str, Any]]:
        """The windows that the model has learned from, oldest first."""
        undone = {window for line in self.lines if line["state"] == "rolled back" for window in line["undoes"]}
        return [line for line in self.lines if line["state"] == "trained" and line["window"] not in undone]

    def in_a_row(self) -> int:
        """The number of quarantined windows since the last trained one."""
        count = 0
        for line in reversed(self.lines):
            if line["state"] == "trained":
                break
            count += line["state"] == "quarantined"
        return count

    def add(self, line: dict[str, Any]) -> None:
        """Adds an entry. It becomes valid when a checkpoint with the new `state` is written."""
        text = format_json(defined(line)) + "\n"
        append_text(self.path, text)
        with open(self.path, "rb") as file:
            os.fsync(file.fileno())
        self._digest.update(text.encode())
        self._bytes += len(text.encode())
        self.lines.append(parse_json(text))
        self._know(self.lines[-1])

    def state(self, vocabulary: str) -> OnlineState:
        """The state to store in a checkpoint.

        Args:
            vocabulary: name of the folder with the ids of the table rows.
        """
        return {
            "window": self.window - 1,
            "ledger_bytes": self._bytes,
            "ledger_sha256": self._digest.hexdigest(),
            "vocabulary": vocabulary,
        }


def as_lines(files: list[SourceFile]) -> list[dict[str, Any]]:
    return [asdict(one) for one in files]


def committed(run: str) -> Iterator[tuple[str, OnlineState]]:
    """Yields (folder, state) for each checkpoint of a run, newest first.

    Raises:
        UserError: an index is damaged.
    """
    for step in reversed(steps_in(run)):
        folder = folder_of(run, step)
        if (state := read_index(folder).progress.get("online")) is not None:
            yield folder, state
