"""Input files, taken in natural order of their names, and read in blocks that hold whole lines.

Block k of a file holds the lines that begin in bytes [k * size, (k + 1) * size) of its text, so blocks can be read in any order,
and none depends on what stands in another.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from dmoe.data.containers import find_layers, read_full, unwrapped
from dmoe.data.layout import SNIFF_BYTES, Layout, sniff
from dmoe.data.raw_file import RawFile, WithoutBlankEnd, text_end
from dmoe.data.rejects import MAX_LINE
from dmoe.data.sources import STDIN, find_paths, identity, open_raw, read_range
from dmoe.errors import UserError


@dataclass(frozen=True)
class Input(RawFile):
    """`end` is where a plain file's text ends, without the empty lines behind its last one."""

    layout: Layout
    end: int


@dataclass
class Block:
    """Text in which lines begin at `start` and at every byte after a line end before `limit`; `end_of_file` where nothing follows."""

    text: bytes
    start: int
    limit: int
    end_of_file: bool


def find_inputs(patterns: list[str], any_label: bool = False) -> list[Input]:
    """The files that the names, folders and globs mean, each once, in natural order of their names.

    Args:
        any_label: a line is well-formed whatever its label is (Layout.any_label).

    Raises:
        UserError: nothing found, an unreadable or broken file, files with and without a label.
    """
    inputs = [one for path in find_paths(patterns) if (one := _describe(path, any_label)).size]
    if not inputs:
        raise UserError(f"--input {' '.join(patterns)}: empty, no lines to read")
    for one in inputs:
        if one.layout.labelled != inputs[0].layout.labelled:
            without, other = (one, inputs[0]) if inputs[0].layout.labelled else (inputs[0], one)
            raise UserError(f"{without.path}: no label column, but {other.path} has one; give them to separate runs")
    return inputs


def spooled_input(path: str, digest: str, any_label: bool = False) -> Input:
    """Standard input, whose bytes were copied to `path` (dmoe.data.sources.spool); see find_inputs.

    Raises:
        UserError: it was empty, or is broken.
    """
    one = _describe(path, any_label, STDIN)
    if not one.size:
        raise UserError(f"--input {STDIN}: empty, no lines to read")
    return replace(one, path=STDIN, changed=digest, at=path)


def _describe(path: str, any_label: bool, name: str = "") -> Input:
    layers, start = find_layers(path, name or path, SNIFF_BYTES)
    size, changed = identity(path)
    layout = replace(sniff(name or path, start), any_label=any_label)
    return Input(path, size if start else 0, changed, layers, layout, 0 if layers else text_end(path, size))


def blocks(one: Input, size: int) -> Iterator[tuple[int, Callable[[], Block | None], int]]:
    """The file's blocks as (number, loader, bytes of the file on disk up to its end).

    A loader may be called in any thread, and gives None where no line begins.

    A plain file's loader reads its block when called; a compressed file is decompressed as the iterator goes.
    """
    begin = one.layout.header_bytes
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


def _plain_block(one: Input, size: int, number: int) -> Block | None:
    offset = max(number * size - 1, 0)
    text = read_range(one.place, offset, min((number + 1) * size + MAX_LINE + 1, one.end) - offset)
    return _cut(text, offset, one.layout.header_bytes, size, number, offset + len(text) >= one.end)


def _cut(text: bytes, offset: int, begin: int, size: int, number: int, ended: bool) -> Block | None:
    """Finds where lines begin in block `number`, whose text begins at `offset` of the file; `begin` is where the data begins."""
    first = max(number * size, begin)
    start = first - offset
    if first > begin:
        start = text.find(b"\n", start - 1) + 1
        if start == 0:
            return None
    limit = min((number + 1) * size - offset, len(text))
    return Block(text, start, limit, ended) if start < limit else None
