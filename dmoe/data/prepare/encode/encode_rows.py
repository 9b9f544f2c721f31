"""Turns the text columns of a block into typed ones: label, numbers, weights, times, groups, and dictionary-encoded tokens.

Every check looks at one row only, so the result does not depend on how the log is cut into blocks.

Shapes: N rows of a block.
"""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dmoe.data.dataset.manifest import GROUP, NO_GROUP, WEIGHT
from dmoe.data.prepare.encode.checked_rows import Block, CheckedRows, codes_of
from dmoe.data.prepare.encode.labels import labels_of, values_of_label
from dmoe.data.prepare.encode.times import SECONDS_A_DAY, YEAR_5000, parse_times
from dmoe.data.prepare.rejects import Reject
from dmoe.data.prepare.schema import Categorical, Dense, Schema
from dmoe.data.prepare.tokens.coded_column import EXPECTED, coded_as
from dmoe.data.prepare.tokens.token_ids import hashes

LABEL, TIME, KEY = "@label", "@time", "@key"


@dataclass
class Seen:
    """Counts over the rows of a block, for checks of the whole log.

    Attributes:
        positives: rows with label 1.
        labels: the most frequent values of the label column, if the schema has `positive`.
        unread: for a log to score: rows whose label, weight or time cannot be read, by the key of the schema.
    """

    positives: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    unread: Counter[str] = field(default_factory=Counter)

    def add(self, other: "Seen") -> None:
        self.positives += other.positives
        self.labels += other.labels
        self.unread += other.unread


@dataclass
class Encoded:
    """The encoded rows of a piece of a log.

    The columns of a batch are @label uint8, @weight float32, @group and @key int64, @time float64, and the stored columns of the
    features: numbers as float64 with nulls (dictionary-encoded int32 if the schema says `type: int`); tokens dictionary-encoded, or a
    list of dictionary-encoded tokens. Code 0 of each dictionary is null, which means missing.

    Attributes:
        batches: the well-formed rows.
        lines: number of lines of the piece.
        rejects: the malformed rows. Their lines are counted within the piece, from 1.
        truncated: rows whose tokens were cut to `max_values`.
    """

    batches: list[pa.RecordBatch]
    lines: int
    rejects: list[Reject]
    truncated: int
    seen: Seen

    @property
    def rows(self) -> int:
        return sum(batch.num_rows for batch in self.batches)


def encode(block: Block, schema: Schema, labelled: bool = True, scoring: bool = False) -> Encoded:
    """Encodes the columns of a block, and removes the malformed rows.

    Args:
        scoring: a row stays if only columns are unreadable that scores do not depend on, such as the label.
    """
    rows = CheckedRows(block, ("label", *schema.optional_for_scores) if scoring else ())
    label_N = labels_of(block, schema, rows) if labelled else np.zeros(len(block.line), np.uint8)
    columns: dict[str, pa.Array | NDArray] = {LABEL: label_N}
    if schema.weight:
        weight_N, given_N = block.numbers(schema.weight)
        with np.errstate(over="ignore"):
            weight32_N = weight_N.astype(np.float32)
        bad_N = ~given_N | (weight32_N <= 0) | ~np.isfinite(weight32_N)
        rows.refuse(bad_N, "weight", schema.weight, "a number above 0")
        columns[WEIGHT] = weight32_N
    if schema.group:
        columns[GROUP] = _group(block.tokens(schema.group))
    if schema.split_key:
        columns[KEY] = _group(block.tokens(schema.split_key))
    seconds_N = None
    if schema.time:
        seconds_N = _time(block, schema.time.format, schema.time.column, rows)
        columns[TIME] = seconds_N
    truncated = 0
    for one in schema.stored:
        name = one.column or one.name
        if one.stored in columns:
            continue
        if isinstance(one, Dense) or one.bucket:
            whole = name in schema.whole_numbers
            columns[one.stored] = _coded(block.tokens(name), "number", name, rows) if whole else _number(block, name, rows)
        elif one.part:
            assert seconds_N is not None
            part = pa.array(_part(seconds_N, one.part)).dictionary_encode()
            texts = pa.DictionaryArray.from_arrays(part.indices, part.dictionary.cast(pa.large_string()))
            columns[one.stored] = _coded(texts, one.type, one.name, rows)
        elif one.pooling:
            columns[one.stored], cut = _bags(block, name, one, rows)
            truncated += cut
        else:
            columns[one.stored] = _coded(block.tokens(name), one.type, name, rows)
    arrays = {name: column if isinstance(column, pa.Array) else pa.array(column) for name, column in columns.items()}
    batch = pa.RecordBatch.from_pydict(arrays)
    if not rows.ok_N.all():
        batch = batch.filter(pa.array(rows.ok_N))
    rejects = [Reject(int(block.line[row]), *why, block.raw(row)) for row, why in rows.why.items()]
    seen = Seen(int(label_N[rows.ok_N].sum()), unread=Counter({key: int((bad_N & rows.ok_N).sum()) for key, bad_N in rows.unread.items()}))
    if labelled:
        seen.labels = values_of_label(block, schema, rows.ok_N)
    return Encoded([batch], block.lines, sorted([*block.rejects, *rejects], key=lambda one: one.line), truncated, seen)


def _number(block: Block, name: str, rows: CheckedRows) -> pa.Array:
    """float64; null if there is no number."""
    value_N, given_N = block.numbers(name)
    rows.refuse(~given_N & ~block.missing(name), "number", name, "a finite number or nothing")
    return pa.array(value_N, mask=~given_N)


def _group(coded: pa.DictionaryArray) -> NDArray[np.int64]:
    """A hash of each row's value; NO_GROUP if it is missing."""
    of_code = hashes(coded.dictionary.cast(pa.large_binary())).view(np.int64)
    of_code = np.append(np.where(of_code == NO_GROUP, 1, of_code), NO_GROUP)
    return of_code[codes_of(coded)]


def _time(block: Block, format: str | None, name: str, rows: CheckedRows) -> NDArray[np.float64]:
    """Seconds since 1970, or the plain number if the schema gives no format."""
    column = block.timestamps(name)
    if column is not None:
        rows.refuse(block.missing(name), "time", name, "a time")
        micros = column.cast(pa.timestamp("us", column.type.tz), safe=False).cast(pa.int64())
        return pc.fill_null(micros, 0).to_numpy().astype(np.float64) / 1e6
    if format in (None, "unix", "unix_ms"):
        value_N, given_N = block.numbers(name)
        rows.refuse(~given_N, "time", name, "a number")
        if format is None:
            return value_N
        seconds_N = value_N / 1000 if format == "unix_ms" else value_N
        unit = "milliseconds (unix_ms)" if format == "unix_ms" else "seconds (unix)"
        rows.refuse(np.abs(seconds_N) > YEAR_5000, "time", name, f"{unit} since 1970, before the year 5000")
        return np.where(np.abs(seconds_N) > YEAR_5000, 0.0, seconds_N)
    coded = block.tokens(name)
    seconds, is_time = parse_times(coded.dictionary, format)
    codes = codes_of(coded)
    rows.refuse(~np.append(is_time, False)[codes], "time", name, f"a time such as {format}")
    return np.append(seconds, 0.0)[codes]


def _part(seconds_N: NDArray[np.float64], part: str) -> NDArray[np.int64]:
    whole = np.floor(seconds_N).astype(np.int64)
    if part == "hour":
        return whole % SECONDS_A_DAY // 3600
    # 1970-01-01 was a Thursday, which %w numbers 4.
    weekday = (whole // SECONDS_A_DAY + 4) % 7
    return weekday if part == "weekday" else np.isin(weekday, (0, 6)).astype(np.int64)


def _bags(block: Block, name: str, one: Categorical, rows: CheckedRows) -> tuple[pa.Array, int]:
    """A list of coded tokens for each row, empty if there is none; and the number of rows with more than `max_values` tokens."""
    lists, truncated = block.bags(name, one.separator, one.max_values)
    coded, bad = coded_as(lists.values, one.type)
    bad_N = np.zeros(len(lists), bool)
    if bad.any():
        bad_N[np.repeat(np.arange(len(lists)), np.diff(lists.offsets.to_numpy()))[bad]] = True
    rows.refuse(bad_N, "token", name, f"{EXPECTED[one.type]} in each place")
    return pa.LargeListArray.from_arrays(lists.offsets, coded), truncated


def _coded(texts: pa.DictionaryArray, kind: str, name: str, rows: CheckedRows) -> pa.DictionaryArray:
    coded, bad_N = coded_as(texts, kind)
    rows.refuse(bad_N, "integer" if kind == "number" else "token", name, f"{EXPECTED[kind]} or nothing")
    return coded
