"""Stage 1: the text of the inputs parsed once into part files, which later stages read instead of the text.

A part is what one block of one file held. Its file is written beside, then renamed, and ends with the checksum of the rest: a part
that is there and whole is finished, and is not parsed again when a killed run continues.
"""

import hashlib
import io
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import IO

import numpy as np

from dmoe.data.engine import Engine, run_tasks
from dmoe.data.inputs import Block, Input, blocks
from dmoe.data.parse import GROUP_ROWS, NO_LABEL, Group, Parsed, Scratch, parse_block
from dmoe.data.progress import Progress
from dmoe.paths import write_atomic

SHORTEST_LINE = 39
DIGEST_BYTES = 32


@dataclass(frozen=True)
class Part:
    """A finished part: its file, the input it comes from, how many lines, rows and malformed lines it holds, and of the rows, how many
    are clicks and how many have no label that can be read."""

    path: str
    input: int
    lines: int
    rows: int
    bad: int
    positives: int
    unlabelled: int = 0


class _Hashing:
    """A file that is written through a checksum."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.sha256 = file, hashlib.sha256()

    def write(self, data: bytes | memoryview) -> int:
        self.sha256.update(data)
        return self.file.write(data)


def _counts(parsed: Parsed) -> tuple[int, ...]:
    positives, unlabelled = (sum(int((group.label == label).sum()) for group in parsed.groups) for label in (1, NO_LABEL))
    return parsed.lines, parsed.rows, len(parsed.bad), positives, unlabelled


def write_part(path: str, parsed: Parsed) -> None:
    """Writes a part file atomically."""
    with write_atomic(path, sync=False) as file:
        out = _Hashing(file)
        np.save(out, np.array([*_counts(parsed), len(parsed.groups)], np.int64))
        np.save(out, np.array([(n, len(line), end, long) for n, line, end, long in parsed.bad], np.int64).reshape(-1, 4))
        np.save(out, np.frombuffer(b"".join(line for _, line, _, _ in parsed.bad), np.uint8))
        for group in parsed.groups:
            for array in (group.label, group.sizes, group.values, group.codes):
                np.save(out, array)
        file.write(out.sha256.digest())


def read_counts(path: str) -> tuple[int, ...] | None:
    """(lines, rows, malformed lines, clicks, rows without a label) of a part file; None where it is absent or damaged."""
    try:
        with open(path, "rb") as file:
            data = memoryview(file.read())
    except FileNotFoundError:
        return None
    if hashlib.sha256(data[:-DIGEST_BYTES]).digest() != data[-DIGEST_BYTES:]:
        return None
    counts: list[int] = np.load(io.BytesIO(data[:4096]), allow_pickle=False).tolist()
    return tuple(counts[:-1])


def read_bad(path: str) -> list[tuple[int, bytes, bool, bool]]:
    """The malformed lines of a part, as in Parsed.bad."""
    with open(path, "rb") as file:
        np.load(file, allow_pickle=False)
        table, raw = np.load(file, allow_pickle=False).tolist(), np.load(file, allow_pickle=False).tobytes()
    bad, at = [], 0
    for line, size, terminated, too_long in table:
        bad.append((line, raw[at : at + size], bool(terminated), bool(too_long)))
        at += size
    return bad


def read_groups(path: str) -> Iterator[Group]:
    """The row groups of a part, one at a time."""
    with open(path, "rb") as file:
        groups = int(np.load(file, allow_pickle=False)[-1])
        for _ in range(2):
            np.load(file, allow_pickle=False)
        for _ in range(groups):
            label, sizes, values, codes = (np.load(file, allow_pickle=False) for _ in range(4))
            yield Group(label, codes, sizes, values)


@dataclass(frozen=True)
class _Piece:
    """Block `block` of an input, or all of its blocks where there is no `load`. `size` is what of the file on disk it takes."""

    number: int
    input: Input
    block: int = 0
    load: Callable[[], Block | None] | None = None
    size: int = 0
    last: bool = True


def stage(
    inputs: list[Input],
    folder: str,
    block_bytes: int,
    engine: Engine,
    check: Callable[[Part, bool], None],
    takes: Callable[[int, Input, int], bool] | None = None,
) -> list[Part]:
    """Parses what is not parsed yet and returns the parts in the order of the rows.

    Args:
        check: called with every part, in order, and whether it is its input's last; may raise to stop.
        takes: of (number of the input, input, block), whether to parse it: all where absent. With it, `last` says nothing.
    """
    os.makedirs(folder, exist_ok=True)
    progress = Progress("parse", total_bytes=sum(one.size for one in inputs))
    pieces = (piece for number, one in enumerate(inputs) for piece in _pieces(number, one, block_bytes, engine.far))
    if takes:
        pieces = (piece for piece in pieces if takes(piece.number, piece.input, piece.block))
    parts: list[Part] = []
    try:
        with closing(run_tasks(engine, _parse, (folder, block_bytes), pieces, lambda one: progress.update(one[0].rows, one[1]))) as done:
            for part, _, last in done:
                parts.append(part)
                check(part, last)
    finally:
        progress.close()
    return parts


def _pieces(number: int, one: Input, block_bytes: int, far: bool) -> Iterator[_Piece]:
    """The pieces of an input, each for a task. A compressed one can be read from its start only, best where its text is parsed."""
    if far and one.compression:
        yield _Piece(number, one)
        return
    before, held = 0, None
    for block, load, position in blocks(one, block_bytes):
        if held:
            yield _Piece(*held, last=False)
        held = number, one, block, load, position - before
        before = position
    if held:
        yield _Piece(*held)


def _parse(shared: tuple[str, int], piece: _Piece) -> Iterator[tuple[Part, int, bool]]:
    """(part, bytes on disk that it takes, whether it is its input's last)."""
    folder, block_bytes = shared
    for one in [piece] if piece.load else _pieces(piece.number, piece.input, block_bytes, far=False):
        path = os.path.join(folder, f"{one.number:05d}-{one.block:06d}.part")
        counts = read_counts(path)
        if counts is None:
            block = one.load() if one.load else None
            parsed = parse_block(block, one.input.layout, _scratch(block_bytes)) if block else Parsed(0, [], [])
            write_part(path, parsed)
            counts = _counts(parsed)
        yield Part(path, one.number, *counts), one.size, one.last


_of_thread = threading.local()


def _scratch(block_bytes: int) -> Scratch:
    """The parser's buffers of this thread."""
    rows = min(block_bytes // SHORTEST_LINE + 1, GROUP_ROWS)
    if getattr(_of_thread, "rows", 0) != rows:
        _of_thread.scratch, _of_thread.rows = Scratch(rows), rows
    scratch: Scratch = _of_thread.scratch
    return scratch
