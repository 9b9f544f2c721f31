"""The malformed lines of a run: which they are, from the parts, and whether they are too many."""

from collections.abc import Iterator

from dmoe.data.prepare.rejects import Reject
from dmoe.data.prepare.source.log_files import File
from dmoe.data.prepare.write.parts import Part, read_rejects
from dmoe.errors import UserError

ALL_BAD_LINES = 10_000
"""A log whose first lines, this many, are all malformed is of another format: no need to read the rest."""


class TooManyBadLines(UserError):
    """A larger share of the lines is malformed than allowed. `where` they are kept, if anywhere."""

    def __init__(self, found: str, where: str = "") -> None:
        super().__init__(f"{found}; bad lines are kept in {where}" if where else found)
        self.found, self.where = found, where


class BadLines:
    """Counts the malformed lines of a run as parts come in, and names the first of them where they are too many."""

    def __init__(self, files: list[File], limit: float) -> None:
        self.files, self.limit, self.parts = files, limit, dict[int, list[Part]]()
        self.lines = self.bad = 0
        self.first: tuple[str, Reject] | None = None

    def add(self, part: Part, last_of_input: bool) -> None:
        """Counts a part; parts come in order.

        Raises:
            TooManyBadLines: the first ALL_BAD_LINES lines are all malformed, or an input ends above the limit with as many lines.
        """
        self.parts.setdefault(part.input, []).append(part)
        if part.bad and self.first is None:
            self.first = self.files[part.input].path, next(self.rejects(part.input))
        # A row may be of several lines.
        self.lines, self.bad = self.lines + part.rows + part.bad, self.bad + part.bad
        if self.lines >= ALL_BAD_LINES and (self.bad == self.lines or (last_of_input and self.bad > self.limit * self.lines)):
            self.finish()

    def rejects(self, number: int) -> Iterator[Reject]:
        """All malformed lines of an input, among the parts so far."""
        before = self.files[number].header_lines
        for part in self.parts.get(number, ()):
            yield from read_rejects(part, before)
            before += part.lines

    def finish(self) -> None:
        """Checks the share of all lines so far.

        Raises:
            TooManyBadLines: a larger share of the lines is malformed than allowed; names the first.
        """
        if self.bad > self.limit * self.lines and self.first:
            path, reject = self.first
            what = f"{self.bad:,} bad line{'s' * (self.bad != 1)} of {self.lines:,}"
            # Each input has one bad line at most, the one below its header.
            below = reject.line == 2 and self.bad <= sum(one.header_lines > 0 for one in self.files)
            hint = "; if it is a row of units or a second header, remove it" if below else ""
            raise TooManyBadLines(f"{path}:{reject.line}: {reject.reason} ({what}; stops above --max-bad-share {self.limit:g}){hint}")
