"""How a command ends: a user's mistake in one line with exit code 2, a bug with its traceback."""

import difflib
import errno
import os
import sys
from collections.abc import Callable, Iterable

from dmoe.names import printable, quoted, short

USER_ERROR, INTERRUPTED = 2, 130
MANY_NAMES = 20
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
    more = f" and {len(names) - MANY_NAMES:,} more" if len(names) > MANY_NAMES else ""
    return f", expected one of {', '.join(short(one) for one in names[:MANY_NAMES])}{more}" if names else ""


def run_command(program: str, main: Callable[[], int | None]) -> int:
    """Runs a command's main and turns the ways in which it can end into an exit code.

    Args:
        program: what the message begins with, such as `dmoe preprocess`.
        main: the command; its return value is the exit code, None is 0.
    """
    try:
        return main() or 0
    except UserError as error:
        message = str(error)
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
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
