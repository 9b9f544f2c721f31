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
from dmoe.data.log.rows import Block
from dmoe.data.log.schema import Categorical, Schema
from dmoe.data.log.times import SECONDS_A_DAY, parse_times
from dmoe.data.log.tokens import hashes
from dmoe.data.rejects import Reject, shown
from dmoe.errors import printable

LABELS = {b"0": 0, b"1": 1, b"0.0": 0, b"1.0": 1}
OTHER_LABELS = frozenset(("true", "false", "yes", "no", "t", "f", "y", "n", "-1"))
LABEL_HINT = "; the schema says which value is 1: label: {column: ..., positive: ...}"
LABELS_SEEN, LABEL_CHARACTERS = 100, 64
"""Of a block, how many values of the label are counted, and how much is kept of each."""
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?")
BOOLEANS = {"true": "1", "false": "0"}
LABEL, TIME = "@label", "@time"
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
    """The well-formed rows as one record batch: @label uint8, @weight float32, @group int64, @time float64, a float64 (null where
    missing) a dense feature and one in buckets, a dictionary (null where missing) or list of dictionary a categorical one."""

    batch: pa.RecordBatch
    lines: int
    rejects: list[Reject]
    truncated: int
    seen: Seen


class _Rows:
    """Which rows of a block are well-formed, and why the others are not: the first reason that is found counts.

    Args:
        optional: keys of the schema without whose values a row is a row all the same.
    """

    def __init__(self, rows: int, optional: Collection[str]) -> None:
        self.ok_N = np.ones(rows, bool)
        self.why: dict[int, tuple[str, str]] = {}
        self.optional = optional
        self.unread: dict[str, NDArray[np.bool_]] = {}

    def refuse(self, bad_N: NDArray[np.bool_], kind: str, name: str, column: pa.Array, expected: str) -> None:
        if kind in self.optional:
            self.unread[kind] = bad_N
            return
        for row in np.flatnonzero(bad_N & self.ok_N).tolist():
            value = column[row].as_py()
            found = "empty" if value in (None, "") else shown(str(value))
            hint = LABEL_HINT if kind == "label" and str(value).casefold() in OTHER_LABELS else ""
            self.why[row] = kind, f"{printable(name)} is {found}, expected {expected}{hint}"
        self.ok_N &= ~bad_N


def encode(block: Block, schema: Schema, labelled: bool = True, scoring: bool = False) -> Encoded:
    """Types a block's columns and takes out the rows that cannot be typed.

    Args:
        scoring: what scores do not depend on, such as the label, takes no row out.
    """
    rows = _Rows(len(block.line), ("label", *schema.optional_for_scores) if scoring else ())
    missing = pa.array(["", *schema.missing], pa.large_string())
    text = {name: _null_where(column, missing) for name, column in block.columns.items()}
    label_N = _label(block, text, schema, rows) if labelled else np.zeros(len(block.line), np.uint8)
    columns: dict[str, pa.Array | NDArray] = {LABEL: label_N}
    if schema.weight:
        weight_N, given_N = to_float(text[schema.weight])
        with np.errstate(over="ignore"):
            weight32_N = weight_N.astype(np.float32)
        bad_N = ~given_N | (weight32_N <= 0) | ~np.isfinite(weight32_N)
        rows.refuse(bad_N, "weight", schema.weight, text[schema.weight], "a number above 0")
        columns[WEIGHT] = weight32_N
    if schema.group:
        columns[GROUP] = _group(text[schema.group])
    seconds_N = None
    if schema.time:
        seconds_N = _time(text[schema.time.column], schema.time.format, schema.time.column, rows)
        columns[TIME] = seconds_N
    for dense in schema.dense:
        columns[dense.name] = _number(text, dense.column or dense.name, rows)
    truncated = 0
    for one in schema.categorical:
        if one.part:
            assert seconds_N is not None
            columns[one.name] = pa.array(_part(seconds_N, one.part).astype(str), pa.large_string()).dictionary_encode()
        elif one.bucket:
            columns[one.name] = _number(text, one.column or one.name, rows)
        elif one.pooling:
            columns[one.name], cut = _bags(text[one.column or one.name], one, missing)
            truncated += cut
        else:
            column = text[one.column or one.name]
            if not pa.types.is_large_string(column.type):
                column = column.cast(pa.large_string())
            columns[one.name] = column.dictionary_encode()
    arrays = {name: column if isinstance(column, pa.Array) else pa.array(column) for name, column in columns.items()}
    batch = pa.RecordBatch.from_pydict(arrays)
    if not rows.ok_N.all():
        batch = batch.filter(pa.array(rows.ok_N))
    rejects = [Reject(int(block.line[row]), *why, block.raw(row)) for row, why in rows.why.items()]
    seen = Seen(int(label_N[rows.ok_N].sum()), unread=Counter({key: int((bad_N & rows.ok_N).sum()) for key, bad_N in rows.unread.items()}))
    if labelled and schema.label.positive is not None:
        values = text[schema.label.column].cast(pa.large_string()).filter(pa.array(rows.ok_N)).drop_null()
        counted = sorted(pc.value_counts(values).to_pylist(), key=lambda one: (-one["counts"], one["values"]))
        for one in counted[:LABELS_SEEN]:
            seen.labels[_written(one["values"], block, schema)[:LABEL_CHARACTERS]] += one["counts"]
    return Encoded(batch, block.lines, sorted([*block.rejects, *rejects], key=lambda one: one.line), truncated, seen)


def _null_where(column: pa.Array, missing: pa.Array) -> pa.Array:
    if not pa.types.is_large_string(column.type):
        return column
    return pc.if_else(pc.is_in(column, missing), pa.scalar(None, column.type), column)


def _label(block: Block, text: dict[str, pa.Array], schema: Schema, rows: _Rows) -> NDArray[np.uint8]:
    name = schema.label.column
    column, positive = text[name], schema.label.positive
    coded = column.cast(pa.large_string()).dictionary_encode()
    tokens = coded.dictionary.to_pylist()
    if positive is None:
        expected, of_token = "0 or 1", [LABELS.get(token.encode(), 2) for token in tokens]
    else:
        expected, same = f"{shown(positive)} or another value", _equal_to(positive, name in block.booleans)
        of_token = [int(same(token)) for token in tokens]
    label_N = np.array([*of_token, 2], np.uint8)[pc.fill_null(coded.indices, len(tokens)).to_numpy()]
    rows.refuse(label_N > 1, "label", name, column, expected)
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


def to_float(column: pa.Array) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """(values [N], 0.0 where there is none; whether each is a finite number [N])."""
    coded = column.dictionary_encode()
    value_of, ok_of = _cast(coded.dictionary)
    codes = pc.fill_null(coded.indices, len(value_of)).to_numpy()
    value_N, ok_N = np.append(value_of, 0.0)[codes], np.append(ok_of, False)[codes]
    ok_N = ok_N & np.isfinite(value_N)
    return np.where(ok_N, value_N, 0.0), ok_N


def _cast(texts: pa.Array) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    try:
        return texts.cast(pa.float64()).to_numpy(zero_copy_only=False), np.ones(len(texts), bool)
    except pa.ArrowInvalid:
        if len(texts) == 1:
            return np.zeros(1), np.zeros(1, bool)
        half = len(texts) // 2
        (a, b), (c, d) = _cast(texts[:half]), _cast(texts[half:])
        return np.concatenate([a, c]), np.concatenate([b, d])


def _number(text: dict[str, pa.Array], name: str, rows: _Rows) -> pa.Array:
    """float64, null where there is none."""
    value_N, given_N = to_float(text[name])
    null_N = text[name].is_null().to_numpy(zero_copy_only=False)
    rows.refuse(~given_N & ~null_N, "number", name, text[name], "a finite number or nothing")
    return pa.array(value_N, mask=~given_N)


def _group(column: pa.Array) -> NDArray[np.int64]:
    coded = column.cast(pa.large_string()).dictionary_encode()
    of_code = hashes(coded.dictionary.cast(pa.large_binary())).view(np.int64)
    of_code = np.append(np.where(of_code == NO_GROUP, 1, of_code), NO_GROUP)
    return of_code[pc.fill_null(coded.indices, len(of_code) - 1).to_numpy()]


def _time(column: pa.Array, format: str | None, name: str, rows: _Rows) -> NDArray[np.float64]:
    """Seconds since 1970, or the bare number where no format is given."""
    if pa.types.is_timestamp(column.type):
        null_N = column.is_null().to_numpy(zero_copy_only=False)
        rows.refuse(null_N, "time", name, column, "a time")
        micros = column.cast(pa.timestamp("us", column.type.tz), safe=False).cast(pa.int64())
        return pc.fill_null(micros, 0).to_numpy().astype(np.float64) / 1e6
    if format in (None, "unix", "unix_ms"):
        value_N, given_N = to_float(column)
        rows.refuse(~given_N, "time", name, column, "a number")
        if format is None:
            return value_N
        seconds_N = value_N / 1000 if format == "unix_ms" else value_N
        rows.refuse(
            np.abs(seconds_N) > MOST_SECONDS, "time", name, column, f"a time in {'milliseconds' if format == 'unix_ms' else 'seconds'}"
        )
        return np.where(np.abs(seconds_N) > MOST_SECONDS, 0.0, seconds_N)
    coded = column.dictionary_encode()
    seconds, is_time = parse_times(coded.dictionary, format)
    codes = pc.fill_null(coded.indices, len(seconds)).to_numpy()
    rows.refuse(~np.append(is_time, False)[codes], "time", name, column, f"a time such as {format}")
    return np.append(seconds, 0.0)[codes]


def _part(seconds_N: NDArray[np.float64], part: str) -> NDArray[np.int64]:
    whole = np.floor(seconds_N).astype(np.int64)
    if part == "hour":
        return whole % SECONDS_A_DAY // 3600
    # 1970-01-01 was a Thursday, which %w numbers 4.
    weekday = (whole // SECONDS_A_DAY + 4) % 7
    return weekday if part == "weekday" else np.isin(weekday, (0, 6)).astype(np.int64)


def _bags(column: pa.Array, one: Categorical, missing: pa.Array) -> tuple[pa.Array, int]:
    """A list of coded tokens a row, empty where there is none; and how many rows had more than `max_values`."""
    if not pa.types.is_large_list(column.type):
        column = pc.split_pattern(column.cast(pa.large_string()), one.separator or "|")
    column = pc.fill_null(column, pa.scalar([], column.type))
    lengths_N = pc.list_value_length(column).to_numpy().astype(np.int64)
    flat = pc.list_flatten(column)
    row = np.repeat(np.arange(len(lengths_N)), lengths_N)
    keep = ~pc.or_(flat.is_null(), pc.is_in(flat, missing)).to_numpy(zero_copy_only=False)
    row, flat = row[keep], flat.filter(pa.array(keep))
    lengths_N = np.bincount(row, minlength=len(lengths_N))
    truncated = 0
    if one.max_values is not None:
        place = np.arange(len(row)) - np.repeat(np.cumsum(lengths_N) - lengths_N, lengths_N)
        truncated = int((lengths_N > one.max_values).sum())
        flat, lengths_N = flat.filter(pa.array(place < one.max_values)), np.minimum(lengths_N, one.max_values)
    offsets = np.concatenate([[0], np.cumsum(lengths_N)])
    return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), flat.dictionary_encode()), truncated
