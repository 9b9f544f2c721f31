"""A raw input file: what tells it from other states of itself, and where its text ends."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from dmoe.data.containers import Stream
from dmoe.data.sources import identity, read_range
from dmoe.errors import UserError

BLANK = b"\r\n\x1a"
"""What empty lines at the end of a text are made of; ^Z ended a file once."""
BLANK_END = 1 << 16
"""Bytes of empty lines at the end of a text that are left out."""


@dataclass(frozen=True)
class RawFile:
    """`size` is in bytes as it lies there; by `size` and `changed` (dmoe.data.sources.identity) a continued run knows it.

    `path` is its name for people; its bytes are at `at`, where that is another place. `compression` are the layers around its text, the
    outermost first (dmoe.data.containers).
    """

    path: str
    size: int
    changed: int | str
    compression: tuple[str, ...]
    at: str = field(default="", kw_only=True)

    @property
    def place(self) -> str:
        return self.at or self.path

    @property
    def known_by(self) -> list[object]:
        """Equal for the same file in the same state: what names of work in progress are made from."""
        return [self.path, self.size, self.changed]


def check_unchanged(files: Sequence[RawFile]) -> None:
    """
    Raises:
        UserError: a file was written to since it was found, so that what was read of it may be no state that it ever had.
    """
    for one in files:
        if not one.at and identity(one.path) != (one.size, one.changed):
            raise UserError(f"{one.path}: changed while it was read; run the same command again when it is complete")


def _end(text: bytes) -> int:
    """Where the text ends without the empty lines behind its last line; that line keeps its end."""
    body = len(text.rstrip(BLANK))
    return text.find(b"\n", body) + 1 or len(text)


def text_end(path: str, size: int) -> int:
    """Where the text of a plain file ends, without the empty lines at its end."""
    tail = read_range(path, max(size - BLANK_END, 0), BLANK_END)
    return size - len(tail) + _end(tail)


class WithoutBlankEnd:
    """A stream of text without the empty lines at its end, as `text_end` has it for a plain file."""

    def __init__(self, stream: Stream) -> None:
        self.stream, self.ready, self.held, self.ended = stream, b"", b"", False

    def read(self, size: int) -> bytes:
        while not (self.ready or self.ended):
            more = self.stream.read(size)
            self.ended = not more
            text = self.held + more
            cut = _end(text) if self.ended else max(len(text.rstrip(BLANK)), len(text) - BLANK_END)
            self.ready, self.held = text[:cut], text[cut:]
        piece, self.ready = self.ready[:size], self.ready[size:]
        return piece
