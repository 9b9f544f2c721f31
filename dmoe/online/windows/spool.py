"""Splits a log from standard input into complete files with a fixed number of lines."""

import os
import sys
import threading
from typing import IO

from dmoe.checkpoint.progress import OnlineState
from dmoe.config.online_settings import WindowsConfig
from dmoe.data.prepare.schema import Schema
from dmoe.errors import UserError
from dmoe.names import whole_number
from dmoe.online.ledger import Ledger
from dmoe.storage.paths import inside, write_atomic

INBOX, NAME = "inbox", "part-{:09d}"


def inbox(run: str) -> str:
    return inside(run, INBOX)


class Spool:
    """Copies lines into files in `RUN/inbox`. If the run is killed, lines that were not written yet are lost: send them again.

    Args:
        windows: windows defined by rows; each file has the rows of a window.

    Attributes:
        ended: whether the input has ended.

    Raises:
        UserError: rows of the schema are not lines, or windows are not defined by rows.
    """

    def __init__(self, run: str, schema: Schema, windows: WindowsConfig, stream: IO[bytes] | None = None) -> None:
        if schema.format == "parquet" or schema.header == "auto":
            raise UserError("--source -: reads lines, and either a header line first or none; give parquet as files")
        if windows.by != "rows":
            raise UserError("--source -: needs online.windows.by rows, and in online.windows.size the rows of a window")
        self.run, self.rows, self.header = run, max(int(windows.size), 1), bool(schema.is_text and schema.header)
        self.stream, self.ended = stream, False

    def start(self, state: OnlineState) -> None:
        """Starts a thread that reads the input. New files are numbered after those of earlier starts."""
        folder = inbox(self.run)
        os.makedirs(folder, exist_ok=True)
        used = [*os.listdir(folder), *(os.path.basename(name) for name in Ledger(self.run, state, cut=False).taken)]
        last = max((whole_number(name.removeprefix("part-")) or 0 for name in used), default=0)
        threading.Thread(target=self._copy, args=(folder, last + 1), daemon=True, name="spool").start()

    def _copy(self, folder: str, number: int) -> None:
        stream = self.stream or sys.stdin.buffer
        try:
            head = stream.readline() if self.header else b""
            while first := stream.readline():
                with write_atomic(os.path.join(folder, NAME.format(number))) as file:
                    file.write(head + first)
                    for _ in range(self.rows - 1):
                        file.write(stream.readline())
                number += 1
        finally:
            self.ended = True

    @staticmethod
    def forget(run: str, names: list[str]) -> None:
        """Removes trained files if they are in the inbox."""
        folder = inbox(run)
        for name in names:
            if os.path.dirname(name) == folder and os.path.exists(name):
                os.remove(name)
