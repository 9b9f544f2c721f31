"""The malformed lines of a run: which they are, from the parts, and whether they are too many."""

from collections.abc import Callable, Iterator, Sequence

from dmoe.data.prepare.parts import Part, read_rejects
from dmoe.data.prepare.raw_file import RawFile
from dmoe.data.prepare.rejects import Reject
from dmoe.data.prepare.source import File
from dmoe.errors import UserError

ALL_BAD_LINES = 10_000
"""A log whose first lines, this many, are all malformed is of another format: no need to read the rest."""


class TooManyBadLines(UserError):
    """A larger share of the lines is malformed than allowed. `where` they are kept, if anywhere."""

    def __init__(self, found: str, where: str = "") -> None:
        super().__init__(f"{found}; bad lines are kept in {where}" if where else found)
        self.found, self.where = found, where


class Watch:
    """Watches the share of malformed lines as parts come in, and says which line stopped the run.

    Args:
        headed: the inputs whose first line is a header.
    """

    def __init__(self, limit: float, headed: Sequence[RawFile]) -> None:
        self.limit, self.headed = limit, headed
        self.lines = self.bad = 0
        self.first: tuple[str, Reject] | None = None

    def count(self, lines: int, bad: int, first: Callable[[], tuple[str, Reject]], last_of_input: bool = False) -> None:
        """Counts a part; parts come in order.

        Args:
            first: the input's path and the part's first malformed line, where it has any.

        Raises:
            TooManyBadLines: the first ALL_BAD_LINES lines are all malformed, or an input ends above the limit with as many lines.
        """
        if bad and self.first is None:
            self.first = first()
        self.lines, self.bad = self.lines + lines, self.bad + bad
        if self.lines >= ALL_BAD_LINES and (self.bad == self.lines or (last_of_input and self.bad > self.limit * self.lines)):
            self.finish()

    def finish(self) -> None:
        """Checks the share of all lines so far.

        Raises:
            TooManyBadLines: a larger share of the lines is malformed than allowed; names the first.
        """
        if self.bad > self.limit * self.lines and self.first:
            path, reject = self.first
            what = f"{self.bad:,} bad line{'s' * (self.bad != 1)} of {self.lines:,}"
            # Each input has one bad line at most, the one below its header.
            below = reject.line == 2 and self.bad <= len(self.headed)
            hint = "; if it is a row of units or a second header, remove it" if below else ""
            raise TooManyBadLines(f"{path}:{reject.line}: {reject.reason} ({what}; stops above --max-bad-share {self.limit:g}){hint}")


class BadLines(Watch):
    """The watch over a run's parts."""

    def __init__(self, files: list[File], limit: float) -> None:
        super().__init__(limit, [one for one in files if one.header_lines])
        self.files, self.parts = files, dict[int, list[Part]]()

    def add(self, part: Part, last_of_input: bool) -> None:
        """Counts a part; see Watch.count."""
        self.parts.setdefault(part.input, []).append(part)
        # A row may be of several lines.
        self.count(part.rows + part.bad, part.bad, lambda: (self.files[part.input].path, next(self.rejects(part.input))), last_of_input)

    def rejects(self, number: int) -> Iterator[Reject]:
        """All malformed lines of an input, among the parts so far."""
        before = self.files[number].header_lines
        for part in self.parts.get(number, ()):
            yield from read_rejects(part, before)
            before += part.lines
