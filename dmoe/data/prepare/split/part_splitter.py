"""Assigns the rows of parts to splits: by the rules of dmoe.data.prepare.split.split_rules, or by the times of the rows.

Shapes: N rows of a part.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dmoe.data.prepare.encode.encode_rows import KEY, LABEL, TIME
from dmoe.data.prepare.encode.times import SECONDS_A_DAY
from dmoe.data.prepare.split.split_rules import Splitter, day_cuts
from dmoe.data.prepare.tokens.buckets import distinct
from dmoe.data.prepare.write.parts import Part, read_batches
from dmoe.errors import UserError

DIGIT_BITS = 16
Times = Literal["none", "bare", "dates"]


class PartSplitter:
    """Splits by row number, or at two times. In a split by time, all rows with one time are in one split, so the shares are approximate.

    Args:
        times: `none`: the parts have no time column; `bare`: it holds plain numbers; `dates`: it holds dates. A split by time uses the
            order of the times, or of the log if there are none. A split by day uses calendar days, or input files if there are no dates.
        held: (validation days, test days) of a split by day.

    Raises:
        UserError: no rows are left to train on.
    """

    def __init__(
        self,
        splitter: Splitter,
        parts: list[Part],
        times: Times = "none",
        held: tuple[int, int] = (0, 0),
    ) -> None:
        self.splitter, self.parts = splitter, parts
        self.firsts = np.cumsum([0] + [part.rows for part in parts])
        self.total = int(self.firsts[-1])
        self.cuts: list[np.uint64] | None = None
        if splitter.by == "time" and times != "none":
            edges = (splitter.shares[0], splitter.shares[0] + splitter.shares[1])
            self.cuts = [self._time_of(int(edge * self.total)) for edge in edges]
            if self._time_of(0) >= self.cuts[0]:
                raise UserError("--split-by time: more rows have the earliest time than the train split may hold; use --split-by random")
        elif splitter.by == "day":
            rows, _ = count_days(parts, times == "dates")
            cuts = day_cuts([rows[day] for day in sorted(rows)], *held, "day" if times == "dates" else "input file")
            if times == "dates":
                # Whole days begin at midnight. The last day is halved at the time of its middle row.
                self.cuts = [self._time_of(cut) for cut in cuts]
            else:
                self.splitter = Splitter(splitter.shares, "day", splitter.seed, cuts)

    def assign(self, number: int) -> NDArray[np.uint8]:
        """The split of each row of a part, [N] uint8: an index in the splitter's names."""
        part = self.parts[number]
        if self.cuts is None:
            key_N = _column(part, KEY, np.int64) if self.splitter.by == "key" else None
            return self.splitter.assign(int(self.firsts[number]), part.rows, self.total, key_N)
        key_N = _ordered(_times(part))
        return (key_N >= self.cuts[0]).astype(np.uint8) + (key_N >= self.cuts[1])

    def batches(self, names: list[str], begin: int, end: int) -> Iterator[tuple[int, pa.RecordBatch, int]]:
        """Yields (part number, batch with the named columns, index in the part of its first row) for the rows begin .. end - 1."""
        number = max(int(np.searchsorted(self.firsts, begin, side="right")) - 1, 0)
        while number < len(self.parts) and self.firsts[number] < end:
            first = int(self.firsts[number])
            for batch in read_batches(self.parts[number], names):
                low, high = max(begin - first, 0), min(end - first, batch.num_rows)
                if low < high:
                    yield number, batch.slice(low, high - low), first + low - int(self.firsts[number])
                first += batch.num_rows
            number += 1

    def _time_of(self, rank: int) -> np.uint64:
        """The time (as an ordered key) of the row with this rank in the order of times. A radix selection in four passes over the time
        column, with 2^16 counters each."""
        if rank >= self.total:
            return np.uint64(2**64 - 1)
        prefix, left = 0, rank
        for digit in reversed(range(64 // DIGIT_BITS)):
            counts = np.zeros(1 << DIGIT_BITS, np.int64)
            low = np.uint64(digit * DIGIT_BITS)
            for key_N in self._keys():
                if digit < 64 // DIGIT_BITS - 1:
                    key_N = key_N[key_N >> np.uint64((digit + 1) * DIGIT_BITS) == np.uint64(prefix)]
                counts += np.bincount(((key_N >> low) & np.uint64(0xFFFF)).astype(np.int64), minlength=1 << DIGIT_BITS)
            value = int(np.searchsorted(np.cumsum(counts), left, side="right"))
            left -= int(counts[:value].sum())
            prefix = (prefix << DIGIT_BITS) | value
        return np.uint64(prefix)

    def _keys(self) -> Iterator[NDArray[np.uint64]]:
        for part in self.parts:
            yield _ordered(_times(part))


def count_days(parts: list[Part], dates: bool, most: int | None = None) -> tuple[Counter[int], Counter[int]]:
    """(rows, positives) of each day: by the dates of the time column (days since 1970), or else by the number of the input file.

    Args:
        most: stops if there are more days.
    """
    rows, positives = Counter[int](), Counter[int]()
    for part in parts:
        if not dates:
            rows[part.input] += part.rows
            positives[part.input] += part.seen.positives
            continue
        for batch in read_batches(part, [LABEL, TIME]):
            days, place_N = distinct(np.floor(batch.column(TIME).to_numpy() / SECONDS_A_DAY).astype(np.int64))
            labels = batch.column(LABEL).to_numpy()
            rows.update(dict(zip(days.tolist(), np.bincount(place_N).tolist(), strict=True)))
            positives.update(dict(zip(days.tolist(), np.bincount(place_N, labels).astype(np.int64).tolist(), strict=True)))
        if most is not None and len(rows) > most:
            break
    return rows, positives


def _times(part: Part) -> NDArray[np.float64]:
    return _column(part, TIME, np.float64)


def _column(part: Part, name: str, dtype: Any) -> NDArray[Any]:
    return np.concatenate([np.empty(0, dtype), *(batch.column(name).to_numpy() for batch in read_batches(part, [name]))])


def _ordered(time_N: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Maps finite floats to unsigned integers in the same order: flips the sign bit, or all bits of a negative number (Herf 2001)."""
    bits = (time_N + 0.0).view(np.uint64)
    return np.where(bits >> np.uint64(63) == 1, ~bits, bits | np.uint64(1 << 63))
