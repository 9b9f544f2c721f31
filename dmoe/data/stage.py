"""Stage 1: the text of the inputs parsed once into part files, which later stages read instead of the text.

A part is what one block of one file held. Its file is written beside, then renamed, and ends with the checksum of the rest: a part
that is there and whole is finished, and is not parsed again when a killed run continues.
"""

import hashlib
import io
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import IO

import numpy as np

from dmoe.data.inputs import Block, Input, blocks
from dmoe.data.parse import GROUP_ROWS, Group, Parsed, Scratch, parse_block
from dmoe.data.progress import Progress

SHORTEST_LINE = 39
DIGEST_BYTES = 32


@dataclass(frozen=True)
class Part:
    """A finished part: its file, the input it comes from, how many lines, rows and malformed lines it holds, and clicks among the rows."""

    path: str
    input: int
    lines: int
    rows: int
    bad: int
    positives: int


class _Hashing:
    """A file that is written through a checksum."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.sha256 = file, hashlib.sha256()

    def write(self, data: bytes | memoryview) -> int:
        self.sha256.update(data)
        return self.file.write(data)


def _counts(parsed: Parsed) -> tuple[int, int, int, int]:
    return parsed.lines, parsed.rows, len(parsed.bad), sum(int(group.label.sum()) for group in parsed.groups)


def write_part(path: str, parsed: Parsed) -> None:
    """Writes a part file atomically."""
    with open(path + ".tmp", "wb") as file:
        out = _Hashing(file)
        np.save(out, np.array([*_counts(parsed), len(parsed.groups)], np.int64))
        np.save(out, np.array([(n, len(line), end, long) for n, line, end, long in parsed.bad], np.int64).reshape(-1, 4))
        np.save(out, np.frombuffer(b"".join(line for _, line, _, _ in parsed.bad), np.uint8))
        for group in parsed.groups:
            for array in (group.label, group.sizes, group.values, group.codes):
                np.save(out, array)
        file.write(out.sha256.digest())
    os.replace(path + ".tmp", path)


def read_counts(path: str) -> tuple[int, int, int, int] | None:
    """(lines, rows, malformed lines, clicks) of a part file; None where it is absent or damaged."""
    try:
        with open(path, "rb") as file:
            data = memoryview(file.read())
    except FileNotFoundError:
        return None
    if hashlib.sha256(data[:-DIGEST_BYTES]).digest() != data[-DIGEST_BYTES:]:
        return None
    lines, rows, bad, positives, _ = np.load(io.BytesIO(data[:4096]), allow_pickle=False).tolist()
    return lines, rows, bad, positives


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


def stage(
    inputs: list[Input],
    folder: str,
    block_bytes: int,
    workers: int,
    check: Callable[[Part, bool], None],
    takes: Callable[[int, Input, int], bool] | None = None,
) -> list[Part]:
    """Parses what is not parsed yet and returns the parts in the order of the rows.

    Args:
        check: called with every part, in order, and whether it is its input's last; may raise to stop.
        takes: of (number of the input, input, block), whether to parse it: all where absent. With it, `last` says nothing.
    """
    os.makedirs(folder, exist_ok=True)
    local = threading.local()

    def work(number: int, path: str, load: Callable[[], Block | None], one: Input) -> Part:
        counts = read_counts(path)
        if counts is None:
            if not hasattr(local, "scratch"):
                local.scratch = Scratch(min(block_bytes // SHORTEST_LINE + 1, GROUP_ROWS))
            block = load()
            parsed = parse_block(block, one.layout, local.scratch) if block else Parsed(0, [], [])
            write_part(path, parsed)
            counts = _counts(parsed)
        return Part(path, number, *counts)

    progress = Progress("parse", total_bytes=sum(one.size for one in inputs))
    parts: list[Part] = []
    waiting: list[tuple[Future[Part], int, bool]] = []

    def take() -> None:
        future, size, last = waiting.pop(0)
        part = future.result()
        progress.update(rows=part.rows, size=size)
        parts.append(part)
        check(part, last)

    with ThreadPoolExecutor(workers) as pool:
        try:
            for number, one in enumerate(inputs):
                before = 0
                for block, load, position in blocks(one, block_bytes):
                    if takes and not takes(number, one, block):
                        continue
                    path = os.path.join(folder, f"{number:05d}-{block:06d}.part")
                    waiting.append((pool.submit(work, number, path, load, one), position - before, False))
                    before = position
                    while len(waiting) > workers + 1:
                        take()
                if before and waiting:
                    future, size, _ = waiting[-1]
                    waiting[-1] = (future, size, True)
            while waiting:
                take()
        finally:
            for future, _, _ in waiting:
                future.cancel()
            progress.close()
    return parts
