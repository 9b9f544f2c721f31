"""Malformed lines for a synthesized log: every kind that preprocessing must count and write to its rejects."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from dmoe.processes.compiled import compiled
from dmoe.testing.planted import hashed, uniform

CORRUPTIONS: tuple[tuple[str, Callable[[list[bytes]], list[bytes]]], ...] = (
    ("fields", lambda fields: fields[:-3]),
    ("fields", lambda fields: [*fields, b"0badcafe"]),
    ("token", lambda fields: [*fields[:16], b"nothexad", *fields[17:]]),
    ("token", lambda fields: [*fields[:16], b"0123456789", *fields[17:]]),
    ("integer", lambda fields: [*fields[:7], b"NaN", *fields[8:]]),
    ("integer", lambda fields: [*fields[:2], b"1.5", *fields[3:]]),
    ("integer", lambda fields: [*fields[:5], b"2147483648", *fields[6:]]),
    ("label", lambda fields: [b"2", *fields[1:]]),
    ("encoding", lambda fields: [*fields[:20], b"\xff\xfe00ab", *fields[21:]]),
    ("encoding", lambda fields: [*fields[:20], b"00\x0000ab", *fields[21:]]),
    ("long", lambda fields: [*fields[:20], b"a" * 5000, *fields[21:]]),
)
"""(kind, as in dmoe.data.prepare.rejects; function that changes the 40 fields of a line)."""


@compiled
def _choose(seed: np.uint64, first: int, share: float, kinds: int, choices: NDArray[np.int64]) -> None:
    for n in range(len(choices)):
        choices[n] = -1
        if uniform(hashed(seed, 160, np.uint64(first + n))) < share:
            choices[n] = np.int64(hashed(seed, 161, np.uint64(first + n)) % np.uint64(kinds))


def plant_bad_lines(text: NDArray[np.uint8], seed: np.uint64, first: int, share: float) -> NDArray[np.uint8]:
    """Inserts a malformed copy before about `share` of the lines, which are chosen by a hash of (seed, row).

    Args:
        text: complete lines, uint8.
        first: row number of the first line.
    """
    lines = text.tobytes().split(b"\n")[:-1]
    choices = np.empty(len(lines), np.int64)
    _choose(seed, first, share, len(CORRUPTIONS), choices)
    out = []
    for line, choice in zip(lines, choices.tolist(), strict=True):
        if choice >= 0:
            out.append(b"\t".join(CORRUPTIONS[choice][1](line.split(b"\t"))) + b"\n")
        out.append(line + b"\n")
    return np.frombuffer(b"".join(out), np.uint8)
