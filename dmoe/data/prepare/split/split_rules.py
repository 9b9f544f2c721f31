"""The rules that assign a row to a split: by a hash of (seed, row number) or (seed, value of a column), by time, or by day."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dmoe.errors import UserError

NAMES = ("train", "validation", "test")
SCORE = "score"
"""The only split of a data set for scoring."""
GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def splitmix64(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finalizer of splitmix64 (Steele et al. 2014), for each element."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def row_hashes(seed: int, first: int, rows: int) -> NDArray[np.uint64]:
    """Hashes [rows] of the rows first, first + 1, ...: splitmix64(splitmix64(seed) + (row + 1) * golden ratio). With one seed, no two rows
    have the same hash."""
    row = np.arange(first + 1, first + rows + 1, dtype=np.uint64)
    return splitmix64(splitmix64(np.array([seed % 2**64], np.uint64)) + row * GOLDEN)


@dataclass(frozen=True)
class Splitter:
    """Assigns rows to splits. Rows are numbered from 0 over the well-formed rows of all inputs.

    Args:
        shares: of train, validation and test, for random, key and time; they add up to 1.
        by: the rule; `score` puts all rows into one split.
        cuts: the first row of validation, and the first row of test, for day.
    """

    shares: tuple[Fraction, Fraction, Fraction]
    by: Literal["random", "key", "time", "day", "score"]
    seed: int
    cuts: tuple[int, int] = (0, 0)

    @property
    def names(self) -> tuple[str, ...]:
        return (SCORE,) if self.by == "score" else NAMES

    def assign(self, first: int, rows: int, total: int, key_N: NDArray[np.int64] | None = None) -> NDArray[np.uint8]:
        """The splits [rows] uint8 (index in `names`) of the rows first, first + 1, ... of `total`.

        random: u = splitmix64(splitmix64(seed) + (row + 1) * golden ratio) / 2^64; train if u is below its share, then validation, test.
        key: as random, but u = splitmix64(splitmix64(seed) xor key) / 2^64, unless the key (hash of a column's value) is 0, for missing.
        time: the first floor(share * total) rows are train, and so on.
        """
        if self.by == "score":
            return np.zeros(rows, np.uint8)
        row = np.arange(first, first + rows, dtype=np.uint64)
        edges = (self.shares[0], self.shares[0] + self.shares[1])
        if self.by not in ("random", "key"):
            cuts = self.cuts if self.by == "day" else [int(edge * total) for edge in edges]
            return ((row >= cuts[0]).astype(np.uint8) + (row >= cuts[1])).astype(np.uint8)
        u = row_hashes(self.seed, first, rows)
        if key_N is not None:
            u = np.where(key_N == 0, u, splitmix64(splitmix64(np.array([self.seed % 2**64], np.uint64)) ^ key_N.view(np.uint64)))
        out = np.zeros(rows, np.uint8)
        for edge in edges:
            limit = int(edge * 2**64)
            if limit < 2**64:
                out += u >= np.uint64(limit)
        return out


def day_cuts(rows: list[int], validation_days: int, test_days: int, what: str = "input file") -> tuple[int, int]:
    """The first row of validation and the first row of test.

    If no days are given for either, the last day is halved: the first half is validation, the rest is test (as MLPerf's DLRM splits day 23
    of Criteo's log).

    Args:
        rows: number of rows of each day, in order.
        what: how messages call a day.

    Raises:
        UserError: no rows are left to train on.
    """
    starts = [0]
    for day in rows:
        starts.append(starts[-1] + day)
    if validation_days or test_days:
        held = validation_days + test_days
        first = starts[max(len(rows) - held, 0)]
        cuts = first, starts[max(len(rows) - test_days, 0)]
    else:
        held = 1
        cuts = starts[-2], starts[-2] + rows[-1] // 2
    if held >= len(rows) or not cuts[0]:
        each = ", a day each" * (what != "day")
        days = f"{len(rows)} {what}{'s' * (len(rows) != 1)}{each}, {held} of them held out"
        raise UserError(f"--split-by day: {days}: no rows are left to train on")
    return cuts


def parse_shares(text: str) -> tuple[Fraction, Fraction, Fraction]:
    """Parses shares such as `0.8,0.1,0.1` as exact fractions.

    Raises:
        UserError: not three shares that add up to 1, or the share of train is 0.
    """
    try:
        shares = tuple(Fraction(part.strip()) for part in text.split(","))
    except (ValueError, ZeroDivisionError):
        shares = ()
    if len(shares) != 3 or min(shares) < 0 or sum(shares) != 1 or not shares[0]:
        raise UserError(f"--split is '{text}', expected three shares for train, validation and test that add up to 1, such as 0.8,0.1,0.1")
    return shares[0], shares[1], shares[2]
