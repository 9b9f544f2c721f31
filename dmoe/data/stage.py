"""Stage 1: the text of the inputs parsed once into part files, which later stages read instead of the text.

A part is what one block of one file held. Its file is written beside, then renamed, and begins with the checksum of the rest: a part
that is there and whole is finished, and is not parsed again when a killed run continues.
"""

import hashlib
import io
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from dmoe.data.inputs import Block, Input, blocks
from dmoe.data.parse import GROUP_ROWS, Group, Parsed, Scratch, parse_block
from dmoe.data.progress import Progress

SHORTEST_LINE = 39


@dataclass(frozen=True)
class Part:
    """A finished part: its file, the input it comes from, and how many lines, rows and malformed lines it holds."""

    path: str
    input: int
    lines: int
    rows: int
    bad: int


def write_part(path: str, parsed: Parsed) -> None:
    """Writes a part file atomically."""
    out = io.BytesIO()
    np.save(out, np.array([parsed.lines, parsed.rows, len(parsed.bad), len(parsed.groups)], np.int64))
    raw = np.frombuffer(b"".join(line for _, line, _, _ in parsed.bad), np.uint8)
    np.save(out, np.array([(n, len(line), end, long) for n, line, end, long in parsed.bad], np.int64).reshape(-1, 4))
    np.save(out, raw)
    for group in parsed.groups:
        for array in (group.label, group.sizes, group.values, group.codes):
            np.save(out, array)
    with open(path + ".tmp", "wb") as file:
        file.write(hashlib.sha256(out.getbuffer()).digest())
        file.write(out.getbuffer())
    os.replace(path + ".tmp", path)


def read_counts(path: str) -> tuple[int, int, int] | None:
    """(lines, rows, malformed lines) of a part file; None where it is absent or damaged."""
    try:
        with open(path, "rb") as file:
            digest = file.read(32)
            if hashlib.file_digest(file, "sha256").digest() != digest:
                return None
            file.seek(32)
            lines, rows, bad, _ = np.load(file, allow_pickle=False).tolist()
    except FileNotFoundError:
        return None
    return lines, rows, bad


def read_bad(path: str) -> list[tuple[int, bytes, bool, bool]]:
    """The malformed lines of a part, as in Parsed.bad."""
    with open(path, "rb") as file:
        file.seek(32)
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
        file.seek(32)
        groups = int(np.load(file, allow_pickle=False)[3])
        for _ in range(2):
            np.load(file, allow_pickle=False)
        for _ in range(groups):
            label, sizes, values, codes = (np.load(file, allow_pickle=False) for _ in range(4))
            yield Group(label, codes, sizes, values)


def stage(inputs: list[Input], folder: str, block_bytes: int, workers: int, check: Callable[[Part, bool], None]) -> list[Part]:
    """Parses what is not parsed yet and returns the parts in the order of the rows.

    Args:
        check: called with every part, in order, and whether it is its input's last; may raise to stop.
    """
    os.makedirs(folder, exist_ok=True)
    local = threading.local()

    def work(number: int, path: str, load: Callable[[], Block | None], one: Input) -> tuple[Part, bool]:
        counts, known = read_counts(path), True
        if counts is None:
            known = False
            if not hasattr(local, "scratch"):
                local.scratch = Scratch(min(block_bytes // SHORTEST_LINE + 1, GROUP_ROWS))
            block = load()
            parsed = parse_block(block, one.layout, local.scratch) if block else Parsed(0, [], [])
            write_part(path, parsed)
            counts = parsed.lines, parsed.rows, len(parsed.bad)
        return Part(path, number, *counts), known

    plain = not any(one.compression for one in inputs)
    progress = Progress("parse", total_bytes=sum(one.size for one in inputs) if plain else 0)
    parts: list[Part] = []
    waiting: list[tuple[Future[tuple[Part, bool]], int, bool]] = []

    def take() -> None:
        future, size, last = waiting.pop(0)
        part, _ = future.result()
        progress.update(rows=part.rows, size=size)
        parts.append(part)
        check(part, last)

    with ThreadPoolExecutor(workers) as pool:
        try:
            for number, one in enumerate(inputs):
                last_block = -1
                for block, load in blocks(one, block_bytes):
                    path = os.path.join(folder, f"{number:05d}-{block:06d}.part")
                    size = block_bytes if one.compression else min(block_bytes, one.size - block * block_bytes)
                    waiting.append((pool.submit(work, number, path, load, one), size, False))
                    last_block = block
                    while len(waiting) > workers + 1:
                        take()
                if last_block >= 0 and waiting:
                    future, size, _ = waiting[-1]
                    waiting[-1] = (future, size, True)
            while waiting:
                take()
        finally:
            for future, _, _ in waiting:
                future.cancel()
            progress.close()
    return parts
