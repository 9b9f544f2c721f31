"""The ledger: a line of JSON a window, of which a checkpoint's index names how many bytes are valid. No torch.

The file is written before the index that counts its new lines; lines behind what the newest sound index counts never happened.
"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from dmoe.checkpoint.index import INDEX, read_index, step_of
from dmoe.checkpoint.progress import OnlineState
from dmoe.errors import UserError
from dmoe.json_text import defined, format_json, parse_json
from dmoe.online.source import SourceFile, order_key
from dmoe.paths import PATHS, append_text, inside, join, write_text

FILE = "ledger.jsonl"


class Ledger:
    """What was used, of a local run.

    Args:
        run: the run's folder.
        state: of the checkpoint that the run goes on from; None of a new run. What the file holds behind it is cut off.
        cut: False leaves the file as it is: for readers.

    Attributes:
        lines: all windows' entries, oldest first.
        taken: the files of all windows, and their copies, by name.

    Raises:
        UserError: the file is not what the checkpoint says.
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
        """The number of the next window, from 1 on."""
        return max((line["window"] for line in self.lines), default=0) + 1

    def good(self) -> list[dict[str, Any]]:
        """The windows that the model has learned from, oldest first."""
        undone = {window for line in self.lines if line["state"] == "rolled back" for window in line["undoes"]}
        return [line for line in self.lines if line["state"] == "trained" and line["window"] not in undone]

    def in_a_row(self) -> int:
        """How many of the newest windows are quarantined."""
        count = 0
        for line in reversed(self.lines):
            if line["state"] == "trained":
                break
            count += line["state"] == "quarantined"
        return count

    def add(self, line: dict[str, Any]) -> None:
        """Adds a window's entry; it counts once `state` is in a checkpoint's index."""
        text = format_json(defined(line)) + "\n"
        append_text(self.path, text)
        with open(self.path, "rb") as file:
            os.fsync(file.fileno())
        self._digest.update(text.encode())
        self._bytes += len(text.encode())
        self.lines.append(parse_json(text))
        self._know(self.lines[-1])

    def state(self, vocabulary: str) -> OnlineState:
        """What a checkpoint's progress keeps.

        Args:
            vocabulary: name of the folder with the ids that the tables' rows have.
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
    """(folder, state) of each checkpoint of a run, newest first. No torch.

    Raises:
        UserError: an index is damaged.
    """
    folder = inside(run, "checkpoints")
    names = sorted(PATHS.ls(folder), reverse=True) if PATHS.exists(folder) else []
    for name in names:
        if step_of(name) is not None and PATHS.exists(join(folder, name, INDEX)):
            state = read_index(join(folder, name)).progress.get("online")
            if state is not None:
                yield join(folder, name), state
