"""Collects the malformed lines of a run from its parts, and ends the run if there are too many."""

from collections.abc import Iterator

from dmoe.data.prepare.rejects import Reject
from dmoe.data.prepare.source.log_files import File
from dmoe.data.prepare.write.parts import Part, read_rejects
from dmoe.errors import UserError

ALL_BAD_LINES = 10_000
"""If so many lines from the start of a log are all malformed, the log has another format, and the rest need not be read."""


class NoRows(UserError):
    """A log has no rows, such as files of a header alone."""


class TooManyBadLines(UserError):
    """More of the lines are malformed than --max-bad-share allows. `where` is the folder that keeps them, if there is one."""

    def __init__(self, found: str, where: str = "") -> None:
        super().__init__(f"{found}; bad lines are kept in {where}" if where else found)
        self.found, self.where = found, where


class BadLines:
    """Counts the malformed lines of a run part by part, and names the first one if there are too many."""

    def __init__(self, files: list[File], limit: float) -> None:
        self.files, self.limit, self.parts = files, limit, dict[int, list[Part]]()
        self.lines = self.bad = 0
        self.first: tuple[str, Reject] | None = None

    def add(self, part: Part, last_of_input: bool) -> None:
        """Adds a part to the counts. Parts must be added in order.

        Raises:
            TooManyBadLines: the first ALL_BAD_LINES lines are all malformed; or an input file with at least as many lines ends, and the
                share of malformed lines is above the limit.
        """
        self.parts.setdefault(part.input, []).append(part)
        if part.bad and self.first is None:
            self.first = self.files[part.input].path, next(self.rejects(part.input))
        # A row may take several lines, so rows and malformed rows are counted, not line ends.
        self.lines, self.bad = self.lines + part.rows + part.bad, self.bad + part.bad
        if self.lines >= ALL_BAD_LINES and (self.bad == self.lines or (last_of_input and self.bad > self.limit * self.lines)):
            self.finish()

    def rejects(self, number: int) -> Iterator[Reject]:
        """The malformed lines of input file `number`, from the parts that were added so far."""
        before = self.files[number].header_lines
        for part in self.parts.get(number, ()):
            yield from read_rejects(part, before)
            before += part.lines

    def finish(self) -> None:
        """Checks the share of malformed lines among all lines so far.

        Raises:
            TooManyBadLines: the share is above the limit; names the first malformed line.
        """
        if self.bad > self.limit * self.lines and self.first:
            path, reject = self.first
            what = f"{self.bad:,} bad line{'s' * (self.bad != 1)} of {self.lines:,}"
            # Each input has at most one bad line, directly below its header.
            below = reject.line == 2 and self.bad <= sum(one.header_lines > 0 for one in self.files)
            hint = "; if it is a row of units or a second header, remove it" if below else ""
            raise TooManyBadLines(f"{path}:{reject.line}: {reject.reason} ({what}; stops above --max-bad-share {self.limit:g}){hint}")
