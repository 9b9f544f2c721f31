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
from dmoe.data.log.schema import Schema
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

    def __init__(self, block: Block) -> None:
        self.block = block
        self.ok_N = np.ones(len(block.line), bool)
        self.why: dict[int, tuple[str, str]] = {}

    def refuse(self, bad_N: NDArray[np.bool_], kind: str, name: str, expected: str) -> None:
        for row in np.flatnonzero(bad_N & self.ok_N).tolist():
            value = self.block.value(name, row)
            found = "empty" if value in (None, "") else shown(str(value).encode())
            self.why[row] = kind, f"{name} is {found}, expected {expected}"
        self.ok_N &= ~bad_N


def encode(block: Block, schema: Schema, labelled: bool = True) -> Encoded:
    """Types a block's columns and takes out the rows that cannot be typed."""
    rows = _Rows(block)
    columns: dict[str, pa.Array | NDArray] = {LABEL: _label(block, schema, rows, labelled)}
    if schema.weight:
        weight_N, given_N = block.numbers(schema.weight)
        with np.errstate(over="ignore"):
            weight32_N = weight_N.astype(np.float32)
        bad_N = ~given_N | (weight32_N <= 0) | ~np.isfinite(weight32_N)
        rows.refuse(bad_N, "weight", schema.weight, "a number above 0")
        columns[WEIGHT] = weight32_N
    if schema.group:
        columns[GROUP] = _group(block.tokens(schema.group))
    seconds_N = None
    if schema.time:
        seconds_N = _time(block, schema.time.format, schema.time.column, rows)
        columns[TIME] = seconds_N
    for dense in schema.dense:
        columns[dense.name] = _number(block, dense.column or dense.name, rows)
    truncated = 0
    for one in schema.categorical:
        column = one.column or one.name
        if one.part:
            assert seconds_N is not None
            coded = pa.array(_part(seconds_N, one.part)).dictionary_encode()
            columns[one.name] = pa.DictionaryArray.from_arrays(coded.indices, coded.dictionary.cast(pa.large_string()))
        elif one.bucket:
            columns[one.name] = _number(block, column, rows)
        elif one.pooling:
            columns[one.name], cut = block.bags(column, one.separator or "|", one.max_values)
            truncated += cut
        else:
            columns[one.name] = block.tokens(column)
    arrays = {name: column if isinstance(column, pa.Array) else pa.array(column) for name, column in columns.items()}
    batch = pa.RecordBatch.from_pydict(arrays)
    if not rows.ok_N.all():
        batch = batch.filter(pa.array(rows.ok_N))
    rejects = [Reject(int(block.line[row]), *why, block.raw(row)) for row, why in rows.why.items()]
    return Encoded(batch, block.lines, sorted([*block.rejects, *rejects], key=lambda one: one.line), truncated)


def _label(block: Block, schema: Schema, rows: _Rows, labelled: bool) -> NDArray[np.uint8]:
    if not labelled:
        return np.zeros(len(rows.ok_N), np.uint8)
    name, positive = schema.label.column, schema.label.positive
    coded = block.tokens(name)
    texts = coded.dictionary.to_pylist()
    of_token = [int(text == positive) for text in texts] if positive is not None else [LABELS.get(text.encode(), 2) for text in texts]
    label_N = np.array([*of_token, 2], np.uint8)[_codes(coded)]
    rows.refuse(label_N > 1, "label", name, "0 or 1" if positive is None else f"'{positive}' or another value")
    return label_N


def _codes(coded: pa.DictionaryArray) -> NDArray[np.int32]:
    """len(dictionary) where there is none."""
    return np.asarray(pc.fill_null(coded.indices, len(coded.dictionary)).to_numpy())


def _number(block: Block, name: str, rows: _Rows) -> pa.Array:
    """float64, null where there is none."""
    value_N, given_N = block.numbers(name)
    rows.refuse(~given_N & ~block.missing(name), "number", name, "a finite number or nothing")
    return pa.array(value_N, mask=~given_N)


def _group(coded: pa.DictionaryArray) -> NDArray[np.int64]:
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
        return value_N / 1000 if format == "unix_ms" else value_N
    coded = block.tokens(name)
    seconds = pc.strptime(coded.dictionary, format=format, unit="s", error_is_null=True).cast(pa.int64())
    of_code = np.append(pc.fill_null(seconds, 0).to_numpy().astype(np.float64), 0.0)
    bad_of = np.append(seconds.is_null().to_numpy(zero_copy_only=False), True)
    codes = _codes(coded)
    rows.refuse(bad_of[codes], "time", name, f"a time such as {format}")
    return of_code[codes]


def _part(seconds_N: NDArray[np.float64], part: str) -> NDArray[np.int64]:
    whole = np.floor(seconds_N).astype(np.int64)
    if part == "hour":
        return whole % SECONDS_A_DAY // 3600
    # 1970-01-01 was a Thursday, which %w numbers 4.
    weekday = (whole // SECONDS_A_DAY + 4) % 7
    return weekday if part == "weekday" else np.isin(weekday, (0, 6)).astype(np.int64)
