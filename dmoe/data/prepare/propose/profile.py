"""Profiles a column of a sample: its texts that mean "no value", its distinct values, and their kind.

Shapes: V distinct values.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dmoe.data.prepare.encode.text_numbers import to_float
from dmoe.data.prepare.propose.sample import Sample
from dmoe.data.prepare.tokens.coded_column import coded_as
from dmoe.data.prepare.tokens.whole_numbers import PLAIN, matching
from dmoe.errors import one_line

NO_VALUE = frozenset(
    ("NULL", "null", "Null", "\\N", "NaN", "nan", "N/A", "n/a", "#N/A", "<NA>", "None", "(null)", "undefined", "(none)", "<null>")
)
"""Texts by which programs write "no value"."""
PERHAPS = frozenset(("NA", "na", "none", "-", "?", "--", ".", "unknown", "Unknown", "missing", "-1", "-999", "-9999", "-1.0"))
"""Texts that may be values: NA is also Namibia. In a column of numbers they mean "no value"; a negative number only if all other numbers
are not negative."""
HEX_DIGITS = 8
"""Number of hex digits of a token that was hashed to 32 bits."""


@dataclass(frozen=True, eq=False)
class Profile:
    """The values of a column.

    Attributes:
        rows: N.
        missing: rows without a value.
        values: [V] distinct texts or times, the most frequent first.
        counts: [V] occurrences of each value.
        no_value: texts that mean "no value".
        most_items: longest list, if the column holds lists; else 0.
        mean_items: average length of the lists.
        unread: why the column cannot be read; empty if it can.
    """

    name: str
    rows: int
    missing: int
    values: pa.Array
    counts: NDArray[np.int64]
    no_value: tuple[str, ...]
    most_items: int = 0
    mean_items: float = 1.0
    unread: str = ""

    @property
    def distinct(self) -> int:
        return len(self.values)

    @property
    def given(self) -> int:
        """Number of values in all rows."""
        return int(self.counts.sum())

    @property
    def is_time(self) -> bool:
        return bool(pa.types.is_timestamp(self.values.type))

    @property
    def unique(self) -> bool:
        """Whether each row has a different value."""
        return not self.most_items and self.distinct == self.given and self.given >= 20

    @cached_property
    def _floats(self) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        return to_float(self.values)

    @cached_property
    def is_number(self) -> bool:
        return not self.is_time and self.distinct > 0 and bool(self._floats[1].all())

    @property
    def numbers(self) -> NDArray[np.float64]:
        """The values as numbers [V]."""
        return self._floats[0]

    @cached_property
    def is_whole(self) -> bool:
        """Whether all values are whole numbers, such as 7 or 7.0."""
        return self.is_number and bool((self.numbers == np.floor(self.numbers)).all())

    @cached_property
    def is_canonical(self) -> bool:
        """Whether all texts are integers without leading zeros, so that different texts are different numbers."""
        return self.readable_as("int") and bool(matching(self.values, PLAIN).all())

    @cached_property
    def _readable(self) -> dict[str, bool]:
        """Cache of `readable_as`."""
        return {}

    def readable_as(self, kind: str) -> bool:
        """Whether preprocessing can read every value as `kind`: hex, int (64 bits) or number (a 32-bit integer)."""
        if self.is_time or not self.distinct:
            return False
        if kind not in self._readable:
            codes = pa.DictionaryArray.from_arrays(pa.array(np.arange(self.distinct), pa.int32()), self.values)
            self._readable[kind] = not coded_as(codes, kind)[1].any()
        return self._readable[kind]

    @cached_property
    def width(self) -> int:
        """The common length of all texts; 0 if they differ."""
        lengths = pc.unique(pc.utf8_length(self.values)).to_pylist()
        return int(lengths[0]) if len(lengths) == 1 else 0

    def has(self, text: str) -> bool:
        """Whether `text` is one of the values."""
        return not self.is_time and bool(pc.any(pc.equal(self.values, text)).as_py())

    def texts(self, most: int | None = None) -> list[str]:
        return [str(one) for one in self.values.slice(0, most).to_pylist()]

    def quantile(self, share: float) -> float:
        """A quantile of the numbers over all rows."""
        order = np.argsort(self.numbers)
        sums = np.cumsum(self.counts[order])
        return float(self.numbers[order][np.searchsorted(sums, share * sums[-1])])

    @property
    def mean(self) -> float:
        with np.errstate(over="ignore"):
            return float(np.average(self.numbers, weights=self.counts))


def profile(sample: Sample, name: str) -> Profile:
    """Profiles a column of a sample."""
    column, lengths = sample.columns[name], None
    if pa.types.is_large_list(column.type):
        lengths, column = pc.fill_null(pc.list_value_length(column), 0).to_numpy(), pc.list_flatten(column)
    found = column.value_counts()
    values, counts = found.field("values"), found.field("counts").to_numpy()
    order = np.lexsort((np.arange(len(counts)), -counts))
    values, counts = values.take(pa.array(order)), counts[order]
    given = np.asarray(values.is_valid().to_numpy(zero_copy_only=False))
    no_value: tuple[str, ...] = ()
    if not pa.types.is_timestamp(values.type):
        given &= np.asarray(pc.not_equal(pc.fill_null(values, ""), "").to_numpy(zero_copy_only=False))
        no_value = _no_value(values.filter(pa.array(given)))
        given &= ~np.asarray(pc.is_in(values, pa.array(no_value, values.type)).to_numpy(zero_copy_only=False))
    kept, rows = int(counts[given].sum()), sample.rows
    missing = rows - kept if lengths is None else int((lengths == 0).sum())
    most, mean = (0, 1.0) if lengths is None else (int(lengths.max(initial=1)), float(lengths.mean()))
    unread = sample.unread.get(name, "")
    return Profile(name, rows, missing, values.filter(pa.array(given)), counts[given], no_value, most, mean, unread)


def _no_value(values: pa.Array) -> tuple[str, ...]:
    """The texts among the distinct texts of a column that mean "no value"."""
    texts = frozenset(values.filter(pc.less(pc.utf8_length(values), 12)).to_pylist())
    found = sorted(texts & NO_VALUE)
    if perhaps := texts & PERHAPS:
        rest = values.filter(pc.invert(pc.is_in(values, pa.array([*found, *perhaps], values.type))))
        number_N, ok_N = to_float(rest)
        if len(rest) > 2 and ok_N.all():
            above = bool((number_N >= 0).all())
            negative = {one for one in perhaps if re.match(r"-\d", one)}
            # A single negative number among others means "no value". Two different ones are ordinary numbers.
            found += sorted(one for one in perhaps if one not in negative or (above and len(negative) == 1))
    return tuple(found)


def shown(values: Collection[str]) -> str:
    return ", ".join(f"'{one_line(one, 30)}'" for one in values)
