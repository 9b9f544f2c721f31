"""The malformed lines of a run: which they are, from the parts, and whether they are too many."""

from collections.abc import Callable, Iterator, Sequence

from dmoe.data.inputs import Input
from dmoe.data.raw_file import RawFile
from dmoe.data.rejects import Reject, diagnose
from dmoe.data.stage import Part, read_bad
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
    """The watch over Criteo's logs, whose parts keep malformed lines by their number within the part."""

    def __init__(self, inputs: list[Input], limit: float) -> None:
        super().__init__(limit, [one for one in inputs if one.layout.header_lines])
        self.inputs = inputs
        self.input, self.lines_of_input = 0, 0

    def add(self, part: Part, last_of_input: bool) -> None:
        """Counts a part; see Watch.count."""
        if part.input != self.input:
            self.input, self.lines_of_input = part.input, 0
        one = self.inputs[part.input]
        before = self.lines_of_input + one.layout.header_lines
        self.lines_of_input += part.lines
        self.count(part.lines, part.bad, lambda: (one.path, next(_rejects_of(one, part, before))), last_of_input)


def _rejects_of(one: Input, part: Part, before: int) -> Iterator[Reject]:
    """The malformed lines of a part, which has `before` lines of its input before it."""
    for line, raw, terminated, too_long in read_bad(part.path):
        why = diagnose(raw, one.layout, terminated=terminated, too_long=too_long)
        if why is None:
            raise AssertionError(f"{one.path}:{before + line}: the parser refused a line that is well-formed: {raw!r}")
        yield Reject(before + line, *why, raw.removesuffix(b"\r"))


def all_rejects(inputs: list[Input], parts: list[Part], number: int) -> Iterator[Reject]:
    before = inputs[number].layout.header_lines
    for part in parts:
        if part.input == number:
            if part.bad:
                yield from _rejects_of(inputs[number], part, before)
            before += part.lines
