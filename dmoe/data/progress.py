"""Progress of long work on stderr: rows/s, MB/s, time left, memory. One refreshed line on a terminal, else a line every few seconds."""

import resource
import sys
import time
from typing import TextIO

TERMINAL_SECONDS, LOG_SECONDS = 0.2, 5.0


def memory_mb() -> float:
    """Resident memory of this process now, in MB; 0.0 where the system does not tell."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize() / 1e6
    except OSError:
        return 0.0


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
    """

    def __init__(self, what: str, total_rows: int = 0, total_bytes: int = 0, stream: TextIO | None = None) -> None:
        self.what, self.total_rows, self.total_bytes = what, total_rows, total_bytes
        self.stream = stream or sys.stderr
        self.terminal = self.stream.isatty()
        self.rows = self.size = 0
        self.began = self.said = time.monotonic()

    def update(self, rows: int = 0, size: int = 0) -> None:
        """Adds rows and bytes that are done."""
        self.rows, self.size = self.rows + rows, self.size + size
        now = time.monotonic()
        if now - self.said >= (TERMINAL_SECONDS if self.terminal else LOG_SECONDS):
            self.said = now
            self._say(self.line(now - self.began))

    def line(self, seconds: float) -> str:
        """What the progress line says after that many seconds."""
        parts = [f"{self.what}: {self.rows:,} rows"]
        done, total = (self.size, self.total_bytes) if self.total_bytes else (self.rows, self.total_rows)
        if total:
            parts.append(f"{min(done / total, 1):.0%}")
        if seconds > 0:
            parts.append(f"{self.rows / seconds:,.0f} rows/s")
            if self.size:
                parts.append(f"{self.size / seconds / 1e6:,.0f} MB/s")
            if total and 0 < done < total:
                parts.append(f"{duration(seconds * (total - done) / done)} left")
        parts.append(f"memory {memory_mb():,.0f} MB")
        return ", ".join(parts)

    def close(self) -> None:
        """Clears a terminal's progress line."""
        if self.terminal:
            self.stream.write("\r\x1b[K")
            self.stream.flush()

    def _say(self, text: str) -> None:
        self.stream.write(f"\r\x1b[K{text}" if self.terminal else f"{text}\n")
        self.stream.flush()
