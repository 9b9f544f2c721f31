"""Reads text in blocks of whole lines. Only for text in which every line end ends a row.

Block k of a file holds the lines that begin in the bytes [k * size, (k + 1) * size) of its text. Blocks can be read in any order, and do
not depend on each other.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from dmoe.data.prepare.rejects import MAX_LINE
from dmoe.data.prepare.source.blank_end import WithoutBlankEnd
from dmoe.data.prepare.source.containers import read_full, unwrapped
from dmoe.data.prepare.source.log_files import File
from dmoe.data.prepare.source.raw_bytes import open_raw, read_range


@dataclass
class Block:
    """The lines that begin in text[start:limit]; the first one begins at `start`. `end_of_file`: no text follows."""

    text: bytes
    start: int
    limit: int
    end_of_file: bool


def blocks(one: File, size: int) -> Iterator[tuple[int, Callable[[], Block | None], int]]:
    """Yields the blocks of a file as (number, loader, bytes of the file on disk up to the end of the block).

    A loader may be called in any thread. It returns None if no line begins in the block. For a plain file the loader reads the block; a
    compressed file is decompressed by this iterator.
    """
    begin = one.header_bytes
    if not one.compression:
        for number in range(begin // size, -(-one.end // size)):
            yield number, partial(_plain_block, one, size, number), min((number + 1) * size, one.end)
        return
    with open_raw(one.place) as file:
        stream = WithoutBlankEnd(unwrapped(one.path, file, one.compression))
        text, offset, number, ended = b"", 0, 0, False
        while not (ended and offset + len(text) <= number * size):
            want = (number + 1) * size + MAX_LINE + 1 - offset - len(text)
            more = b"" if ended else read_full(one.path, stream, want)
            ended = ended or len(more) < want
            text += more
            yield number, partial(_cut, text, offset, begin, size, number, ended), file.tell()
            number += 1
            keep = max(number * size - 1 - offset, 0)
            text, offset = text[keep:], offset + keep


def _plain_block(one: File, size: int, number: int) -> Block | None:
    offset = max(number * size - 1, 0)
    text = read_range(one.place, offset, min((number + 1) * size + MAX_LINE + 1, one.end) - offset)
    return _cut(text, offset, one.header_bytes, size, number, offset + len(text) >= one.end)


def _cut(text: bytes, offset: int, begin: int, size: int, number: int, ended: bool) -> Block | None:
    """The lines that begin in block `number`.

    Args:
        offset: position of `text` in the file.
        begin: position of the first row in the file.
    """
    first = max(number * size, begin)
    start = first - offset
    if first > begin:
        start = text.find(b"\n", start - 1) + 1
        if start == 0:
            return None
    limit = min((number + 1) * size - offset, len(text))
    return Block(text, start, limit, ended) if start < limit else None
