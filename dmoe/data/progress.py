"""Progress of long work on stderr: rows/s, MB/s, time left, memory. One refreshed line on a terminal, else a line every few seconds."""

import resource
import sys
import time
from typing import Any, TextIO

from dmoe.terminal import has_terminal, show_progress, tell

TERMINAL_SECONDS, LOG_SECONDS = 0.2, 5.0


def memory_mb() -> float:
    """Resident memory of this process now, in MB; 0.0 where the system does not tell."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize() / 1e6
    except OSError:
        return 0.0


def own_memory_mib() -> int:
    """Memory that this process holds itself, in MiB; 0 if the system does not tell.

    Files that the process maps (libraries, data) are not counted. The system drops their pages and reads them again as it likes, so the
    resident size of a process can change by hundreds of MiB although the process holds the same.
    """
    try:
        with open("/proc/self/status") as file:
            fields = dict(line.split(":", 1) for line in file)
        return sum(int(fields[name].split()[0]) for name in ("RssAnon", "RssShmem", "VmSwap")) >> 10
    except (OSError, KeyError):
        return 0


def peak_memory_mb() -> float:
    """The most resident memory that this process has had, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def duration(seconds: float) -> str:
    """`42 s`, `3 min 20 s`, `2 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class Progress:
    """Counts work done and says how it goes.

    Args:
        what: what the line begins with.
        total_rows, total_bytes: how much there is to do, where known; bytes decide the share done where both are given.
        stream: stderr unless told.
        unit: the word for a row in the line, such as `points`.
        terminal_only: prints nothing if the stream is no terminal, because the program then prints lines of its own.
    """

    def __init__(
        self,
        what: str,
        total_rows: int = 0,
        total_bytes: int = 0,
        stream: TextIO | None = None,
        unit: str = "rows",
        terminal_only: bool = False,
    ) -> None:
        self.what, self.total_rows, self.total_bytes, self.unit = what, total_rows, total_bytes, unit
        self.stream = stream or sys.stderr
        self.terminal = has_terminal(self.stream)
        self.silent = terminal_only and not self.terminal
        self.note = ""
        self.rows = self.size = self.before = 0
        self.began = self.said = time.monotonic()

    def begun(self, rows: int) -> None:
        """Starts with `rows` done before this process; they do not count for the speed."""
        self.rows = self.before = rows
        self.began = time.monotonic()

    def update(self, rows: int = 0, size: int = 0) -> None:
        """Adds rows and bytes that are done."""
        self.rows, self.size = self.rows + rows, self.size + size
        now = time.monotonic()
        if not self.silent and now - self.said >= (TERMINAL_SECONDS if self.terminal else LOG_SECONDS):
            self.said = now
            if self.terminal:
                show_progress(self.line(now - self.began), self.stream)
            else:
                tell(self.line(now - self.began), event="progress", stream=self.stream, **self.numbers(now - self.began))

    def numbers(self, seconds: float) -> dict[str, Any]:
        """What `line` says, for programs; what is not known is None."""
        done, total = (self.size, self.total_bytes) if self.total_bytes else (self.rows, self.total_rows)
        timed = done if self.total_bytes else done - self.before
        return {
            "what": self.what,
            "rows": self.rows,
            "bytes": self.size,
            "share": min(done / total, 1) if total else None,
            "rows_per_second": (self.rows - self.before) / seconds if seconds > 0 else None,
            "seconds_left": seconds * (total - done) / timed if timed > 0 and done < total else None,
            "memory_mb": memory_mb(),
        }

    def line(self, seconds: float) -> str:
        """What the progress line says after that many seconds."""
        found = self.numbers(seconds)
        parts = [f"{self.what}: {self.rows:,} {self.unit}"]
        if found["share"] is not None:
            parts.append(f"{found['share']:.0%}")
        if found["rows_per_second"] is not None:
            rate = found["rows_per_second"]
            parts.append(f"{rate:,.0f} {self.unit}/s" if rate >= 10 or not rate else f"{rate:.2g} {self.unit}/s")
            if self.size:
                parts.append(f"{self.size / seconds / 1e6:,.0f} MB/s")
        if found["seconds_left"] is not None:
            parts.append(f"{duration(found['seconds_left'])} left")
        return ", ".join([*parts, *([self.note] if self.note else []), f"memory {found['memory_mb']:,.0f} MB"])

    def close(self) -> None:
        """Clears a terminal's progress line."""
        if self.terminal:
            show_progress("", self.stream)
