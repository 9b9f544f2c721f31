"""What programs say while they run: lines of text, or JSON lines (`--log-format json`), and the one progress line of a terminal.

A library function says nothing by itself; what it says through here is meant for the program that it is part of.
"""

import os
import sys
import threading
import time
from typing import Any, Literal, TextIO

from dmoe.json_text import defined, format_json
from dmoe.names import printable, write_stderr_by

FORMAT = "DMOE_LOG_FORMAT"
"""The environment variable that says `json`: it reaches the processes that a program starts too."""
Level = Literal["info", "warning", "error"]
COLOURS = {"info": "", "warning": "\x1b[33m", "error": "\x1b[31m"}
CLEAR, PLAIN = "\r\x1b[K", "\x1b[0m"
# Reentrant: a signal's handler may speak while a line is being written.
_lock = threading.RLock()
_progress_is_shown = False


def use(log_format: str) -> None:
    """Has this process, and those that it starts, write `json` or `text`."""
    os.environ[FORMAT] = log_format


def as_json() -> bool:
    """Whether lines are JSON."""
    return os.environ.get(FORMAT) == "json"


def has_terminal(stream: TextIO) -> bool:
    """Whether the stream is a terminal that shows text and understands control sequences."""
    return stream.isatty() and not as_json() and os.environ.get("TERM") != "dumb"


def tell(message: str, level: Level = "info", event: str = "message", stream: TextIO | None = None, **numbers: Any) -> None:
    """Writes a line.

    Args:
        message: for a person; what a terminal would act on in it is escaped.
        level: on a terminal, warnings are yellow and errors red, unless NO_COLOR is set.
        event: what kind of line it is, such as `step`; for programs.
        stream: stderr unless told.
        numbers: what the message says, for programs: JSON alone has them; null where they are not finite.
    """
    global _progress_is_shown
    stream = stream or sys.stderr
    text = line_of(message, level, event, stream, **numbers)
    with _lock:
        if _progress_is_shown and stream.isatty():
            text, _progress_is_shown = CLEAR + text, False
        # One write a line: print makes two, between which another process's line may come.
        stream.write(text)
        stream.flush()


def json_line(message: str, level: Level = "info", event: str = "message", **numbers: Any) -> str:
    """A line of JSON, whatever the format of the others is. Lone surrogates, as file names may have, are escaped."""
    what = {"time": round(time.time(), 3), "level": level, "event": event, "message": message, **defined(numbers)}
    return format_json(what) + "\n"


def line_of(message: str, level: Level = "info", event: str = "message", stream: TextIO | None = None, **numbers: Any) -> str:
    """What `tell` writes."""
    if as_json():
        return json_line(message, level, event, **numbers)
    colour = COLOURS[level] if has_terminal(stream or sys.stderr) and not os.environ.get("NO_COLOR") else ""
    return f"{colour}{printable(message, keep=chr(10))}{PLAIN if colour else ''}\n"


def _show(text: str) -> None:
    tell(text, "warning" if text.startswith("warning:") else "info")


write_stderr_by(_show)


def show_progress(text: str, stream: TextIO) -> None:
    """Puts the progress line of a terminal in place of the one before; the next line of `tell` takes its place. Empty text clears it."""
    global _progress_is_shown
    with _lock:
        if text or _progress_is_shown:
            stream.write(CLEAR + printable(text)[: max(_columns(stream) - 1, 1)])
            stream.flush()
        _progress_is_shown = bool(text)


def _columns(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80
