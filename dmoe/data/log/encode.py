"""From a block's text columns to typed ones: label, numbers, weights, times, groups, and tokens as a dictionary and codes.

Every check is of a row alone, so that a row is well-formed or not whatever block it lies in.

Shapes: N rows of a block.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dmoe.data.dataset.manifest import GROUP, NO_GROUP, WEIGHT
from dmoe.data.log.rows import Block
from dmoe.data.log.schema import Categorical, Schema
from dmoe.data.log.tokens import hashes
from dmoe.data.rejects import Reject, shown

LABELS = {b"0": 0, b"1": 1, b"0.0": 0, b"1.0": 1}
LABEL, TIME = "@label", "@time"
SECONDS_A_DAY = 86400


@dataclass
class Encoded:
    """The well-formed rows as one record batch: @label uint8, @weight float32, @group int64, @time float64, a float64 (null where
    missing) a dense feature and one in buckets, a dictionary (null where missing) or list of dictionary a categorical one."""

    batch: pa.RecordBatch
    lines: int
    rejects: list[Reject]
    truncated: int


class _Rows:
    """Which rows of a block are well-formed, and why the others are not: the first reason that is found counts."""

    def __init__(self, rows: int) -> None:
        self.ok_N = np.ones(rows, bool)
        self.why: dict[int, tuple[str, str]] = {}

    def refuse(self, bad_N: NDArray[np.bool_], kind: str, name: str, column: pa.Array, expected: str) -> None:
        for row in np.flatnonzero(bad_N & self.ok_N).tolist():
            value = column[row].as_py()
            found = "empty" if value in (None, "") else shown(str(value).encode())
            self.why[row] = kind, f"{name} is {found}, expected {expected}"
        self.ok_N &= ~bad_N


def encode(block: Block, schema: Schema, labelled: bool = True) -> Encoded:
    """Types a block's columns and takes out the rows that cannot be typed."""
    rows = _Rows(len(block.line))
    missing = pa.array(["", *schema.missing], pa.large_string())
    text = {name: _null_where(column, missing) for name, column in block.columns.items()}
    columns: dict[str, pa.Array | NDArray] = {LABEL: _label(text, schema, rows, labelled)}
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
    return Encoded(batch, block.lines, sorted([*block.rejects, *rejects], key=lambda one: one.line), truncated)


def _null_where(column: pa.Array, missing: pa.Array) -> pa.Array:
    if not pa.types.is_large_string(column.type):
        return column
    return pc.if_else(pc.is_in(column, missing), pa.scalar(None, column.type), column)


def _label(text: dict[str, pa.Array], schema: Schema, rows: _Rows, labelled: bool) -> NDArray[np.uint8]:
    if not labelled:
        return np.zeros(len(rows.ok_N), np.uint8)
    column, name = text[schema.label.column], schema.label.column
    if schema.label.positive is not None:
        null_N = column.is_null().to_numpy(zero_copy_only=False)
        rows.refuse(null_N, "label", name, column, f"'{schema.label.positive}' or another value")
        is_positive = pc.fill_null(pc.equal(column.cast(pa.large_string()), schema.label.positive), False)
        return np.asarray(is_positive.to_numpy(zero_copy_only=False)).astype(np.uint8)
    coded = column.cast(pa.large_string()).dictionary_encode()
    of_code = np.array([LABELS.get(token.encode(), 2) for token in coded.dictionary.to_pylist()] + [2], np.uint8)
    label_N = of_code[pc.fill_null(coded.indices, len(coded.dictionary)).to_numpy()]
    rows.refuse(label_N > 1, "label", name, column, "0 or 1")
    return label_N


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
        return value_N / 1000 if format == "unix_ms" else value_N
    coded = column.dictionary_encode()
    seconds = pc.strptime(coded.dictionary, format=format, unit="s", error_is_null=True).cast(pa.int64())
    of_code = np.append(pc.fill_null(seconds, 0).to_numpy().astype(np.float64), 0.0)
    bad_of = np.append(seconds.is_null().to_numpy(zero_copy_only=False), True)
    codes = pc.fill_null(coded.indices, len(bad_of) - 1).to_numpy()
    rows.refuse(bad_of[codes], "time", name, column, f"a time such as {format}")
    return of_code[codes]


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
