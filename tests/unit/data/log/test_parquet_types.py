"""A column of any parquet type is read as the text that a CSV of the same rows has, and what cannot be read is refused by its name."""

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dmoe.data.dataset.manifest import load_manifest
from dmoe.data.prepare.options import Options
from dmoe.data.prepare.pipeline import preprocess
from dmoe.data.prepare.schema import parse_schema
from dmoe.data.prepare.source import pieces as source
from dmoe.data.prepare.source.log_files import find_files
from dmoe.errors import UserError
from tests.unit.data.log.logs import read_split

ROWS = 60
CLICKS = [n % 3 == 0 for n in range(ROWS)]


def make(folder: Path, columns: dict[str, pa.Array], categorical: list[Any], output: str = "d", **tree: Any) -> Path:
    pq.write_table(pa.table({"click": pa.array(CLICKS), **columns}), folder / "log.parquet", row_group_size=7)
    schema = parse_schema({"format": "parquet", "label": "click", "categorical": categorical} | tree, "s")
    options = {"schema": schema, "where": "s", "min_count": 1, "split": "1,0,0", "workers": 1, "block_bytes": 3000}
    preprocess(Options([f"{folder}/log.parquet"], f"{folder}/{output}", **options))
    return folder / output


def tokens(folder: Path, name: str) -> list[Any]:
    """The texts of a feature's ids: of each row, a list where it is a bag; None where missing."""
    token_of: dict[int, str | None] = {0: None}
    for row in pq.read_table(folder / "vocabulary" / f"{name}.parquet").to_pylist():
        token_of[row["id"]] = row["token"].decode()
    found = [row[name] for row in read_split(folder, "train")]
    return [[token_of[one] for one in row] if isinstance(row, list) else token_of[row] for row in found]


def cycle(*values: Any) -> list[Any]:
    return [values[n % len(values)] for n in range(ROWS)]


TEXTS = cycle("a", None, "größe", "", "b,c")
KNOWN = cycle("a", None, "größe", None, "b,c")


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (pa.array(TEXTS), KNOWN),
        (pa.array(TEXTS, pa.large_string()), KNOWN),
        (pa.array(TEXTS).dictionary_encode(), KNOWN),
        (pa.array(TEXTS, pa.large_string()).dictionary_encode(), KNOWN),
        (pa.array([None if one is None else one.encode() for one in TEXTS], pa.binary()), KNOWN),
        (pa.array(cycle(1, None, -7), pa.int8()), cycle("1", None, "-7")),
        (pa.array(cycle(2**64 - 1, 0), pa.uint64()), cycle(str(2**64 - 1), "0")),
        (pa.array(cycle(-(2**63), 2**63 - 1), pa.int64()), cycle(str(-(2**63)), str(2**63 - 1))),
        (pa.array(cycle(1, 2, None), pa.int32()).dictionary_encode(), cycle("1", "2", None)),
        (pa.array(cycle(True, False, None)), cycle("1", "0", None)),
        (pa.array(cycle(Decimal("1.50"), Decimal("-2.00"), None), pa.decimal128(10, 2)), cycle("1.50", "-2.00", None)),
        (pa.array(cycle(Decimal(10**30), None), pa.decimal256(40, 0)), cycle(str(10**30), None)),
        (pa.array(cycle(date(2024, 2, 29), None)), cycle("2024-02-29", None)),
    ],
    ids=lambda one: str(one.type) if isinstance(one, pa.Array) else "",
)
def test_a_token_is_the_text_of_its_value(tmp_path: Path, array: pa.Array, expected: list[str | None]):
    assert tokens(make(tmp_path, {"site": array}, ["site"]), "site") == expected


@pytest.mark.parametrize("list_type", [pa.list_, pa.large_list])
@pytest.mark.parametrize(
    ("items", "expected"),
    [
        (pa.string(), cycle(["a", "b"], [None], [None], ["c"])),
        (pa.large_string(), cycle(["a", "b"], [None], [None], ["c"])),
        (pa.int32(), cycle(["1", "2"], [None], [None], ["3"])),
        (pa.decimal128(5, 1), cycle(["1.0", "2.0"], [None], [None], ["3.0"])),
    ],
    ids=str,
)
def test_a_list_is_a_bag(tmp_path: Path, list_type: Any, items: pa.DataType, expected: list[list[str | None]]):
    values = cycle(["a", "b"], [], None, ["c", None]) if pa.types.is_string(items) or pa.types.is_large_string(items) else None
    made = {pa.int32(): int, pa.decimal128(5, 1): Decimal}.get(items, str)
    values = values or [
        None if row is None else [None if one is None else made(one) for one in row] for row in cycle([1, 2], [], None, [3, None])
    ]
    folder = make(tmp_path, {"tags": pa.array(values, list_type(items))}, [{"name": "tags", "pooling": "sum"}])
    assert tokens(folder, "tags") == expected


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (pa.array(cycle(1.5, None, -2.25), pa.float32()), cycle(1.5, 0, -2.25)),
        (pa.array(cycle(0.1, 1e300, None), pa.float64()), cycle(0.1, np.finfo(np.float32).max, 0)),
        (pa.array(cycle(1.5, None), pa.float16()), cycle(1.5, 0)),
        (pa.array(cycle(7, None, -(2**40)), pa.int64()), cycle(7, 0, -(2**40))),
        (pa.array(cycle(Decimal("1.25"), None), pa.decimal128(10, 2)), cycle(1.25, 0)),
        (pa.array(cycle(True, False, None)), cycle(1, 0, 0)),
        (pa.array(cycle("1.5", "", None, "2e2")), cycle(1.5, 0, 0, 200)),
        (pa.array(cycle("1.5", None)).dictionary_encode(), cycle(1.5, 0)),
    ],
    ids=lambda one: str(one.type) if isinstance(one, pa.Array) else "",
)
def test_a_number_is_its_value(tmp_path: Path, array: pa.Array, expected: list[float]):
    folder = make(tmp_path, {"price": array, "site": pa.array(TEXTS)}, ["site"], dense=["price"])
    assert [row["price"] for row in read_split(folder, "train")] == [float(np.float32(one)) for one in expected]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "+05:30"])
def test_a_timestamp_is_its_instant(tmp_path: Path, unit: str, zone: str | None):
    """Without a zone it is UTC's, as text is."""
    begin = datetime(2024, 2, 28, 21, tzinfo=UTC)
    times = [begin + timedelta(hours=5 * n) for n in range(ROWS)]
    array = pa.array([one if zone else one.replace(tzinfo=None) for one in times], pa.timestamp(unit, zone))
    parts = [{"name": "hour", "part": "hour"}, {"name": "weekday", "part": "weekday"}]
    folder = make(tmp_path, {"at": array}, parts, time={"column": "at", "format": "unix"})
    assert tokens(folder, "hour") == [str(one.hour) for one in times]
    assert tokens(folder, "weekday") == [one.strftime("%w") for one in times]
    days = load_manifest(str(folder)).made_by["days"]
    assert sum(one["rows"] for one in days) == ROWS  # type: ignore[union-attr, index]
    assert times[0].astimezone(timezone(timedelta(hours=5, minutes=30))).date() != times[0].date(), "or the zone could not matter"


@pytest.mark.parametrize(
    ("array", "feature", "named"),
    [
        (pa.array([{"a": 1}] * ROWS), "site", "struct"),
        (pa.array([[("k", 1)]] * ROWS, pa.map_(pa.string(), pa.int64())), "site", "map"),
        (pa.array([[["x"]]] * ROWS), {"name": "site", "pooling": "sum"}, "list<"),
        (pa.array([[{"a": 1}]] * ROWS), {"name": "site", "pooling": "sum"}, "struct"),
        (pa.array([["x"]] * ROWS), "site", "pooling"),
        (pa.array([b"\xff"] * ROWS), "site", "binary"),
    ],
    ids=["struct", "map", "list of lists", "list of structs", "list without pooling", "bytes that are no text"],
)
def test_what_cannot_be_read_is_refused_by_its_name(tmp_path: Path, array: pa.Array, feature: Any, named: str):
    with pytest.raises(UserError) as caught:
        make(tmp_path, {"site": array}, [feature])
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}/log.parquet: column 'site' is ")
    assert named in message
    assert "\n" not in message
    assert not (tmp_path / "d" / "manifest.json").exists()


def test_a_nested_column_that_nothing_reads_is_no_mistake(tmp_path: Path):
    folder = make(tmp_path, {"site": pa.array(TEXTS), "deep": pa.array([{"a": [1]}] * ROWS)}, ["site"])
    assert tokens(folder, "site") == KNOWN


@pytest.mark.parametrize(
    ("written", "begins"),
    [
        ({"row_group_size": 4_000}, [1, 4_001, 8_001]),
        ({"row_group_size": 4_000, "use_dictionary": False}, [1, 4_001, 8_001]),
        # Several dictionaries in a batch of 100 rows.
        ({"row_group_size": 60}, [*range(1, 11_000, 120)]),
        # The dictionary of the second row group ends within it.
        ({"row_group_size": 4_000, "dictionary_pagesize_limit": 3_000}, [1, 4_001, 8_001]),
    ],
    ids=["dictionary", "plain", "small row groups", "a dictionary that ends"],
)
def test_how_a_file_encodes_texts_changes_nothing(tmp_path: Path, written: dict[str, Any], begins: list[int]):
    """A token that max_values cuts is not counted as a distinct one."""
    rows, most = 11_000, 3
    sites = [("", "NULL", None, "größe", f"site {n % 5}", f"site {n % 3}")[n % 6] for n in range(rows)]
    bags = [
        None
        if n % 13 == 0
        else [("", "NULL", None, f"last {max(n, 6000)}")[(n + m) % 4] if m % 2 else f"tag {n * m % 9}" for m in range(5)]
        for n in range(rows)
    ]
    columns = {"click": [n % 2 for n in range(rows)], "site": sites, "tags": pa.array(bags, pa.list_(pa.string()))}
    pq.write_table(pa.table(columns), tmp_path / "log.parquet", **written)
    features = ["site", {"name": "tags", "pooling": "sum", "max_values": most}]
    schema = parse_schema({"format": "parquet", "label": "click", "missing": ["NULL"], "categorical": features}, "s")
    (file, *_), read, _ = find_files([f"{tmp_path}/log.parquet"], schema, "s")
    pieces = [piece for piece, _ in source.pieces(file, read, 100 * source.BYTES_A_ROW)]
    assert [one.first for one in pieces] == begins
    sizes = [[batch.num_rows for batch in one.batches()] for one in pieces]
    assert max(max(some) for some in sizes) <= 100
    assert [1 + sum(sum(some) for some in sizes[:place]) for place in range(len(sizes) + 1)] == [*begins, rows + 1]
    assert {one.coded for one in pieces} == {("site", "tags.list.element") if written.get("use_dictionary", True) else ()}

    options = {"schema": schema, "where": "s", "min_count": 1, "split": "1,0,0", "block_bytes": 100 * source.BYTES_A_ROW}
    preprocess(Options([f"{tmp_path}/log.parquet"], f"{tmp_path}/d", **options))
    known = [None if site in ("", "NULL") else site for site in sites]
    kept = [[one for one in bag or [] if one not in ("", "NULL", None)][:most] for bag in bags]
    assert tokens(tmp_path / "d", "site") == known
    assert tokens(tmp_path / "d", "tags") == [one or [None] for one in kept]
    preprocess(Options([f"{tmp_path}/log.parquet"], f"{tmp_path}/h", **options | {"ids": "hash", "hash_size": "50000"}))
    distinct = load_manifest(f"{tmp_path}/h").made_by["collisions"]
    assert {name: one["tokens"] for name, one in distinct.items()} == {
        "site": len({*known} - {None}),
        "tags": len({token for bag in kept for token in bag}),
    }
