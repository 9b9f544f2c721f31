"""Removes the empty lines at the end of a text."""

from dmoe.data.prepare.source.containers import Stream
from dmoe.data.prepare.source.raw_bytes import read_range

BLANK = b"\r\n\x1a"
"""The bytes of empty lines at the end of a text. Old programs end a file with ^Z."""
BLANK_END = 1 << 16
"""At most so many bytes of empty lines are removed."""


def _end(text: bytes) -> int:
    """Position after the last line that is not empty, and after its line end."""
    body = len(text.rstrip(BLANK))
    return text.find(b"\n", body) + 1 or len(text)


def text_end(path: str, size: int) -> int:
    """Size of a plain file without the empty lines at its end."""
    tail = read_range(path, max(size - BLANK_END, 0), BLANK_END)
    return size - len(tail) + _end(tail)


class WithoutBlankEnd:
    """A stream of text without the empty lines at its end; the same rule as `text_end`, for streams."""

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
