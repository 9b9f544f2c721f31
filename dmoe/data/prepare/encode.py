"""From a block's text columns to typed ones: label, numbers, weights, times, groups, and tokens as a dictionary and codes.

Every check is of a row alone, so that a row is well-formed or not whatever block it lies in.

Shapes: N rows of a block.
"""

import re
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dmoe.data.dataset.manifest import GROUP, NO_GROUP, WEIGHT
from dmoe.data.prepare.coded import EXPECTED, coded_as
from dmoe.data.prepare.rejects import Reject, shown
from dmoe.data.prepare.rows import Block
from dmoe.data.prepare.schema import Categorical, Dense, Schema
from dmoe.data.prepare.times import SECONDS_A_DAY, parse_times
from dmoe.data.prepare.tokens import hashes
from dmoe.names import printable

LABELS = {b"0": 0, b"1": 1, b"0.0": 0, b"1.0": 1}
OTHER_LABELS = frozenset(("true", "false", "yes", "no", "t", "f", "y", "n", "-1"))
LABEL_HINT = "; the schema says which value is 1: label: {column: ..., positive: ...}"
LABELS_SEEN, LABEL_CHARACTERS = 100, 64
"""Of a block, how many values of the label are counted, and how much is kept of each."""
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?")
BOOLEANS = {"true": "1", "false": "0"}
LABEL, TIME, KEY = "@label", "@time", "@key"
MOST_SECONDS = float(1 << 53)
"""Beyond this a float64 does not hold whole seconds, so there is no hour of the day."""


@dataclass
class Seen:
    """What the rows of a block say of columns that must fit the schema as a whole.

    Attributes:
        positives: rows of label 1; `labels` the most frequent values of the label where the schema's `positive` says which is 1.
        unread: of a log to score, rows whose label, weight or time cannot be read, by the schema's key.
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
    """The well-formed rows of a piece as record batches; its malformed ones, by their lines in the piece, of which the first is 1.

    Columns: @label uint8, @weight float32, @group and @key int64, @time float64, and what the schema's features are stored as (`stored`):
    numbers as float64, null where missing, or where whole as codes of int32 values; tokens as codes of values, or a list of codes a row.
    Codes are a dictionary's, whose value 0 is null.
    """

    batches: list[pa.RecordBatch]
    lines: int
    rejects: list[Reject]
    truncated: int
    seen: Seen

    @property
    def rows(self) -> int:
        return sum(batch.num_rows for batch in self.batches)


class _Rows:
    """Which rows of a block are well-formed, and why the others are not: the first reason that is found counts.

    Args:
        optional: keys of the schema without whose values a row is a row all the same.
    """

    def __init__(self, block: Block, optional: Collection[str]) -> None:
        self.block = block
        self.ok_N = np.ones(len(block.line), bool)
        self.why: dict[int, tuple[str, str]] = {}
        self.optional = optional
        self.unread: dict[str, NDArray[np.bool_]] = {}

    def refuse(self, bad_N: NDArray[np.bool_], kind: str, name: str, expected: str) -> None:
        if kind in self.optional:
            self.unread[kind] = bad_N
            return
        for row in np.flatnonzero(bad_N & self.ok_N).tolist():
            value = self.block.value(name, row)
            found = "empty" if value in (None, "") else shown(str(value))
            hint = LABEL_HINT if kind == "label" and str(value).casefold() in OTHER_LABELS else ""
            self.why[row] = kind, f"{printable(name)} is {found}, expected {expected}{hint}"
        self.ok_N &= ~bad_N


def encode(block: Block, schema: Schema, labelled: bool = True, scoring: bool = False) -> Encoded:
    """Types a block's columns and takes out the rows that cannot be typed.

    Args:
        scoring: what scores do not depend on, such as the label, takes no row out.
    """
    rows = _Rows(block, ("label", *schema.optional_for_scores) if scoring else ())
    label_N = _label(block, schema, rows) if labelled else np.zeros(len(block.line), np.uint8)
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
    if labelled and schema.label.positive is not None:
        coded = block.tokens(schema.label.column)
        counts = np.bincount(_codes(coded)[rows.ok_N], minlength=len(coded.dictionary))
        counted = [(token, count) for token, count in zip(coded.dictionary.to_pylist(), counts.tolist(), strict=False) if count]
        for token, count in sorted(counted, key=lambda one: (-one[1], one[0]))[:LABELS_SEEN]:
            seen.labels[_written(token, block, schema)[:LABEL_CHARACTERS]] += count
    return Encoded([batch], block.lines, sorted([*block.rejects, *rejects], key=lambda one: one.line), truncated, seen)


def _label(block: Block, schema: Schema, rows: _Rows) -> NDArray[np.uint8]:
    name, positive = schema.label.column, schema.label.positive
    coded = block.tokens(name)
    tokens = coded.dictionary.to_pylist()
    if positive is None:
        expected, of_token = "0 or 1", [LABELS.get(token.encode(), 2) for token in tokens]
    else:
        expected, same = f"{shown(positive)} or another value", _equal_to(positive, name in block.booleans)
        of_token = [int(same(token)) for token in tokens]
    label_N = np.array([*of_token, 2], np.uint8)[_codes(coded)]
    rows.refuse(label_N > 1, "label", name, expected)
    return np.where(label_N > 1, np.uint8(0), label_N)


def _equal_to(positive: str, boolean: bool) -> Callable[[str], bool]:
    """Whether a value of the label is `positive`: as numbers, where both are, as booleans, or as texts.

    Args:
        boolean: the values are a boolean column's "1" and "0".
    """
    if boolean and positive.lower() in BOOLEANS:
        return lambda token: token == BOOLEANS[positive.lower()]
    if positive.lower() in BOOLEANS:
        return lambda token: token.lower() == positive.lower()
    if NUMBER.fullmatch(positive):
        number = Decimal(positive)
        return lambda token: NUMBER.fullmatch(token) is not None and Decimal(token) == number
    return lambda token: token == positive


def _written(token: str, block: Block, schema: Schema) -> str:
    """A value of the label as its file has it."""
    return {"1": "true", "0": "false"}.get(token, token) if schema.label.column in block.booleans else token


def _codes(coded: pa.DictionaryArray) -> NDArray[np.int32]:
    """len(dictionary) where there is none."""
    return np.asarray(pc.fill_null(coded.indices, len(coded.dictionary)).to_numpy())


def _number(block: Block, name: str, rows: _Rows) -> pa.Array:
    """float64, null where there is none."""
    value_N, given_N = block.numbers(name)
    rows.refuse(~given_N & ~block.missing(name), "number", name, "a finite number or nothing")
    return pa.array(value_N, mask=~given_N)


def _group(coded: pa.DictionaryArray) -> NDArray[np.int64]:
    """The hash of each row's value; NO_GROUP where it is missing."""
    of_code = hashes(coded.dictionary.cast(pa.large_binary())).view(np.int64)
    of_code = np.append(np.where(of_code == NO_GROUP, 1, of_code), NO_GROUP)
    return of_code[_codes(coded)]


def _time(block: Block, format: str | None, name: str, rows: _Rows) -> NDArray[np.float64]:
    """Seconds since 1970, or the bare number where no format is given."""
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
        rows.refuse(np.abs(seconds_N) > MOST_SECONDS, "time", name, f"a time in {'milliseconds' if format == 'unix_ms' else 'seconds'}")
        return np.where(np.abs(seconds_N) > MOST_SECONDS, 0.0, seconds_N)
    coded = block.tokens(name)
    seconds, is_time = parse_times(coded.dictionary, format)
    codes = _codes(coded)
    rows.refuse(~np.append(is_time, False)[codes], "time", name, f"a time such as {format}")
    return np.append(seconds, 0.0)[codes]


def _part(seconds_N: NDArray[np.float64], part: str) -> NDArray[np.int64]:
    whole = np.floor(seconds_N).astype(np.int64)
    if part == "hour":
        return whole % SECONDS_A_DAY // 3600
    # 1970-01-01 was a Thursday, which %w numbers 4.
    weekday = (whole // SECONDS_A_DAY + 4) % 7
    return weekday if part == "weekday" else np.isin(weekday, (0, 6)).astype(np.int64)


def _bags(block: Block, name: str, one: Categorical, rows: _Rows) -> tuple[pa.Array, int]:
    """A list of coded tokens a row, empty where there is none; and how many rows had more than `max_values`."""
    lists, truncated = block.bags(name, one.separator, one.max_values)
    coded, bad = coded_as(lists.values, one.type)
    bad_N = np.zeros(len(lists), bool)
    bad_N[np.repeat(np.arange(len(lists)), np.diff(lists.offsets.to_numpy()))[bad]] = True
    rows.refuse(bad_N, "token", name, f"{EXPECTED[one.type]} in each place")
    return pa.LargeListArray.from_arrays(lists.offsets, coded), truncated


def _coded(texts: pa.DictionaryArray, kind: str, name: str, rows: _Rows) -> pa.DictionaryArray:
    coded, bad_N = coded_as(texts, kind)
    rows.refuse(bad_N, "integer" if kind == "number" else "token", name, f"{EXPECTED[kind]} or nothing")
    return coded
