"""Which split a row goes to: by a stable hash of (seed, row number), or by its place in time."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dmoe.errors import UserError

NAMES = ("train", "validation", "test")
GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def splitmix64(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64 (Steele et al. 2014), element by element."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@dataclass(frozen=True)
class Splitter:
    """Shares of train, validation and test that add up to 1. Rows are numbered from 0 over the well-formed lines of all inputs."""

    shares: tuple[Fraction, Fraction, Fraction]
    by: Literal["random", "time"]
    seed: int

    def assign(self, first: int, rows: int, total: int) -> NDArray[np.uint8]:
        """The splits [rows] uint8 (index in NAMES) of the rows first, first + 1, ... of `total`.

        random: u = splitmix64(splitmix64(seed) + (row + 1) * golden ratio) / 2^64; train below its share, then validation, then test.
        time: the first floor(share * total) rows are train, and so on.
        """
        row = np.arange(first, first + rows, dtype=np.uint64)
        edges = (self.shares[0], self.shares[0] + self.shares[1])
        if self.by == "time":
            cuts = [int(edge * total) for edge in edges]
            return ((row >= cuts[0]).astype(np.uint8) + (row >= cuts[1])).astype(np.uint8)
        key = splitmix64(np.array([self.seed % 2**64], np.uint64))
        u = splitmix64(key + (row + np.uint64(1)) * GOLDEN)
        out = np.zeros(rows, np.uint8)
        for edge in edges:
            limit = int(edge * 2**64)
            if limit < 2**64:
                out += u >= np.uint64(limit)
        return out


def parse_shares(text: str) -> tuple[Fraction, Fraction, Fraction]:
    """`0.8,0.1,0.1` as exact fractions.

    Raises:
        UserError: not three shares that add up to 1, or nothing to train on.
    """
    try:
        shares = tuple(Fraction(part.strip()) for part in text.split(","))
    except (ValueError, ZeroDivisionError):
        shares = ()
    if len(shares) != 3 or min(shares) < 0 or sum(shares) != 1 or not shares[0]:
        raise UserError(f"--split is '{text}', expected three shares for train, validation and test that add up to 1, such as 0.8,0.1,0.1")
    return shares[0], shares[1], shares[2]
