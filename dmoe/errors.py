"""How a command ends: a user's mistake in one line with exit code 2, a bug with its traceback."""

import difflib
import errno
import os
import reprlib
import sys
from collections.abc import Callable, Iterable
from typing import Any

from dmoe.interrupts import INTERRUPTED, interruptible
from dmoe.names import printable, quoted, short

USER_ERROR = 2
MOST_SHOWN, MOST_NAMES = 100, 20
"""Letters of a value, and names of a list, that a message repeats."""
LONG_NAME, COMPARED_NAMES = 200, 5000
"""Longer names, and more of them, are not compared with a misspelt one: that takes the product of their lengths."""


class UserError(Exception):
    """A mistake that the user can mend. The message says what was wrong, where, and what to do."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for a misspelt name: `, did you mean 'experts'?`, or the known names (the first ones of many) where none is near."""
    names = sorted(known)
    compared = [one for one in names if len(one) <= LONG_NAME][:COMPARED_NAMES]
    if close := difflib.get_close_matches(name[:LONG_NAME], compared, n=1, cutoff=0.5):
        return f", did you mean {quoted(close[0])}?"
    more = f" or {len(names) - MOST_NAMES:,} more" if len(names) > MOST_NAMES else ""
    return f", expected one of {', '.join(short(one) for one in names[:MOST_NAMES])}{more}" if names else ""


def one_line(text: str, limit: int = MOST_SHOWN) -> str:
    """The text for a message: control characters as escapes, and cut where it is longer than `limit`."""
    kept = text if len(text) <= limit else f"{text[: limit - 3]}..."
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in kept)


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
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.ENOENT, errno.EISDIR, errno.ENOTDIR):
                raise
            where = f": {error.filename}" if error.filename else ""
            message = f"{(error.strerror or str(error)).lower()}{where}"
    print(f"{program}: {printable(message)}", file=sys.stderr)
    return USER_ERROR
