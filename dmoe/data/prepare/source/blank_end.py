"""Where a text ends: without the empty lines behind its last line."""

from dmoe.data.prepare.source.containers import Stream
from dmoe.data.prepare.source.raw_bytes import read_range

BLANK = b"\r\n\x1a"
"""What empty lines at the end of a text are made of; ^Z ended a file once."""
BLANK_END = 1 << 16
"""Bytes of empty lines at the end of a text that are left out."""


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
