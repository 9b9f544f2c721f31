"""How a command ends: a user's mistake in one line with exit code 2, a bug with its traceback."""

import difflib
import errno
import os
import reprlib
import sys
from collections.abc import Callable, Iterable
from typing import Any

from dmoe.names import printable
from dmoe.processes.interrupts import INTERRUPTED, interruptible
from dmoe.terminal import tell

USER_ERROR = 2
MENDED_BY_USERS = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS, errno.ENOENT, errno.EISDIR, errno.ENOTDIR))
"""Errors of the operating system that are no bug: a full disk, a missing right, a path that is not there."""
MOST_SHOWN, MOST_NAMES = 100, 20
"""Letters of a value, and names of a list, that a message repeats."""
MOST_COMPARED = 5000
"""Names that a misspelt one is compared with."""


class UserError(Exception):
    """A mistake that the user can mend. The message says what was wrong, where, and what to do."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for a misspelt name: `, did you mean 'experts'?`, or the known names (the first few) where none is near."""
    names = sorted(known)
    # Comparing takes the product of the lengths, so that long names are left out.
    compared = [one for one in names if len(one) <= 2 * MOST_SHOWN][:MOST_COMPARED]
    if close := difflib.get_close_matches(name[:MOST_SHOWN], compared, n=1, cutoff=0.5):
        return f", did you mean '{one_line(close[0])}'?"
    more = f" or {len(names) - MOST_NAMES:,} more" if len(names) > MOST_NAMES else ""
    return f", expected one of {', '.join(map(one_line, names[:MOST_NAMES]))}{more}" if names else ""


def one_line(text: str, limit: int = MOST_SHOWN) -> str:
    """The text for a message: control characters as escapes, and cut where it is longer than `limit`."""
    return printable(text if len(text) <= limit else f"{text[: limit - 3]}...")


def shown(value: Any, limit: int = MOST_SHOWN) -> str:
    """A value of a file for a message, as Python writes it, and cut: a list of lists of one list may stand for millions of numbers."""
    return one_line(_SHORT.repr(value), limit)


class _Short(reprlib.Repr):
    """As `repr`, in bounded time."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother = 3, MOST_SHOWN, MOST_SHOWN

    def repr_int(self, value: int, level: int) -> str:
        # Python refuses to write a number of more than 4,300 digits.
        return repr(value) if value.bit_length() < 256 else f"a number of {value.bit_length():,} bits"


_SHORT = _Short()


def first_line(error: BaseException, limit: int = 200) -> str:
    """The first line of an error's message, at most `limit` characters; the type of the error if it has no message."""
    return next((line.strip()[:limit] for line in str(error).splitlines() if line.strip()), type(error).__name__)


def reason_of(error: OSError) -> str:
    """The reason that the operating system gives for an error, such as `permission denied`."""
    return (error.strerror or str(error)).lower()


def told_by_system(error: OSError) -> str:
    """The error in the system's words, whatever library raised it, and the file: `no space left on device: runs/first/metrics.jsonl`."""
    reason = os.strerror(error.errno).lower() if error.errno is not None else str(error)
    return f"{reason}: {error.filename}" if error.filename else reason


def run_command(program: str, main: Callable[[], int | None]) -> int:
    """Runs a command's main and turns the ways in which it can end into an exit code.

    Args:
        program: what the message begins with, such as `dmoe preprocess`.
        main: the command; its return value is the exit code, None is 0.
    """
    with interruptible(program) as interrupts:
        try:
            return main() or 0
        except UserError as error:
            message = str(error)
        except KeyboardInterrupt:
            interrupts.tell()
            return INTERRUPTED
        except BrokenPipeError:
            # The reader of our output (head, less) went away: not an error. Keep the interpreter from flushing into it again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except OSError as error:
            if error.errno not in MENDED_BY_USERS:
                raise
            message = told_by_system(error)
    tell(printable(f"{program}: {message}"), "error", "error", code=USER_ERROR)
    return USER_ERROR
