"""Logs of any bytes, read by a schema: every record is a row or is counted and kept aside, as a plain-Python reference has it."""

import gzip
import itertools
import math
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dmoe.data.prepare.options import Options
from dmoe.data.prepare.pipeline import Result, preprocess
from dmoe.data.prepare.schema import parse_schema
from dmoe.errors import UserError
from tests.log_files import NO_TEXT, PACKED, packed
from tests.unit.data.reference import records_of, without_blank_end

FOLDERS = itertools.count()
COLUMNS = ("at", "click", "w", "x", "site", "tags", "unused")
TREE: dict[str, Any] = {
    "label": "click",
    "time": {"column": "at", "format": "unix"},
    "weight": "w",
    "missing": ["NULL"],
    "dense": ["x"],
    "categorical": ["site", {"name": "tags", "separator": "|", "pooling": "sum"}, {"name": "hour", "part": "hour"}],
}
FARTHEST_SECONDS = 2.0**53
"""Beyond this a float64 holds no whole seconds, so that there is no hour of the day."""
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
GOOD = b"1700000000,1,0.5,2.25,news,a|b,z"
REFUSED = (
    "no well-formed row",
    "empty, no rows to read",
    ":1: no column",
    ":1: the header",
    ":1: the first line is empty",
    ": two columns",
    "truncated or broken",
    *NO_TEXT,
)
NUMBERS = [b"0", b"1.0", b"2", b"-1", b"+1", b" 1", b"1e400", b"1e39", b"1e-60", b"nan", b"-inf", b"1_0", b"0x1", b"1.", b".5"]
QUOTES = [b'"a,b"', b'"a\nb"', b'"\r\n""\n"', b'"say ""hi"""', b'"open', b'"a"b', b'a"b', b'""']
OTHERS = [b"", b"NULL", b"\xff", "größe".encode(), b"a\0b", b"a\rb", b"|", b"a||b", b"x,y", b"\xef\xbb\xbf1"]


def fields_of(text: str) -> list[str] | None:
    """The fields of a record of CSV; None where a quote is not closed, or text follows a closing one."""
    fields, at = [], 0
    while True:
        if text[at : at + 1] == '"':
            value, at = "", at + 1
            while True:
                end = text.find('"', at)
                if end < 0:
                    return None
                value, at = value + text[at:end], end + 1
                if text[at : at + 1] != '"':
                    break
                value, at = value + '"', at + 1
            if text[at : at + 1] not in ("", ","):
                return None
        else:
            end = text.find(",", at)
            end = len(text) if end < 0 else end
            value, at = text[at:end], end
        fields.append(value)
        if at == len(text):
            return fields
        at += 1


def finite(text: str) -> float | None:
    return float(text) if NUMBER.fullmatch(text) and math.isfinite(float(text)) else None


def row_of(values: dict[str, Any]) -> tuple[Any, ...] | None:
    """(label, weight, x, site, tags) of a row's texts, None where one has no value; None where the row is malformed."""
    found = {name: None if value in (None, "", "NULL") else value for name, value in values.items()}
    label = {"0": 0, "1": 1, "0.0": 0, "1.0": 1}.get(found["click"] or "")
    weight = finite(found["w"] or "")
    x = None if found["x"] is None else finite(found["x"])
    at = finite(found["at"] or "")
    if label is None or weight is None or at is None or abs(at) > FARTHEST_SECONDS or (found["x"] is not None and x is None):
        return None
    with np.errstate(over="ignore", under="ignore"):
        if not 0 < np.float32(weight) < np.inf or weight <= 0:
            return None
        x = np.float32(np.clip(x or 0.0, np.finfo(np.float32).min, np.finfo(np.float32).max))
    tags = found["tags"] or ""
    tags = [tag for tag in (tags.split("|") if isinstance(tags, str) else tags) if tag not in (None, "", "NULL")]
    return label, np.float32(weight), x, found["site"], tags


def row_of_line(line: bytes) -> tuple[Any, ...] | None:
    try:
        text = line.removesuffix(b"\r").removeprefix(b"\xef\xbb\xbf").decode()
    except UnicodeDecodeError:
        return None
    fields = None if "\0" in text or "\r" in text.replace("\r\n", "") else fields_of(text)
    return row_of(dict(zip(COLUMNS, fields, strict=True))) if fields and len(fields) == len(COLUMNS) else None


def run(folder: Path, pattern: str, **options: Any) -> Result:
    schema = parse_schema(TREE | options.pop("tree", {}), "schema.yaml")
    settings = {"min_count": 1, "split": "1,0,0", "max_bad_share": 1.0, "workers": 1}
    return preprocess(Options([f"{folder}/{pattern}"], f"{folder}/d", schema=schema, where="schema.yaml", **(settings | options)))


def rows_in(data: Path) -> list[tuple[Any, ...]]:
    token_of: dict[str, dict[int, str | None]] = {}
    for name in ("site", "tags"):
        kept = pq.read_table(data / "vocabulary" / f"{name}.parquet").to_pylist()
        token_of[name] = {row["id"]: row["token"].decode() for row in kept} | {0: None}
    made = []
    for path in sorted((data / "train").iterdir()):
        for row in pq.read_table(path).to_pylist():
            tags = [token_of["tags"][one] for one in row["tags"]]
            bare = (np.float32(row["@weight"]), np.float32(row["x"]), token_of["site"][row["site"]])
            made.append((row["label"], *bare, [] if tags == [None] else tags))
    return made


def lines_aside(data: Path, name: str) -> list[int]:
    kept = data / "rejects" / name
    return [int(line.split(b"\t")[1]) for line in kept.read_bytes().split(b"\n")[1:-1]] if kept.exists() else []


changed = st.tuples(st.integers(0, 6), st.sampled_from([*NUMBERS, *QUOTES, *OTHERS]))


def with_field(change: tuple[int, bytes]) -> bytes:
    fields = GOOD.split(b",")
    fields[change[0]] = change[1]
    return b",".join(fields)


piece = st.just(GOOD) | changed.map(with_field) | st.binary(max_size=20)
text = st.lists(st.tuples(piece, st.sampled_from([b"\n", b"\n", b"\r\n", b"\n\n", b"\r"])).map(b"".join), max_size=14).map(b"".join)


@settings(max_examples=40, deadline=None)
@given(body=text, last=piece | st.just(b""), block_bytes=st.sampled_from([40, 150, 1 << 20]), zipped=st.booleans())
@example(body=b"", last=with_field((2, b"+1")), block_bytes=40, zipped=False)
@example(body=with_field((4, b'"open')) + b"\n", last=GOOD + b"\r", block_bytes=40, zipped=True)
def test_every_line_is_a_row_or_is_kept_aside(
    tmp_path_factory: pytest.TempPathFactory, body: bytes, last: bytes, block_bytes: int, zipped: bool
):
    folder = tmp_path_factory.getbasetemp() / f"log-{next(FOLDERS)}"
    folder.mkdir()
    data = ",".join(COLUMNS).encode() + b"\n" + GOOD + b"\n" + body + last
    (folder / "log.csv").write_bytes(gzip.compress(data) if zipped else data)
    result = run(folder, "log.csv", block_bytes=block_bytes)
    lines = records_of(without_blank_end(data))[1:]
    expected = [row_of_line(line) for _, line in lines]
    bad = [number for (number, _), row in zip(lines, expected, strict=True) if row is None]
    assert (result.lines, sum(result.bad_lines.values())) == (len(lines), len(bad))
    assert rows_in(folder / "d") == [row for row in expected if row is not None]
    assert lines_aside(folder / "d", "00000-log.csv.tsv") == bad
    shutil.rmtree(folder)


cells = {
    "at": st.sampled_from([1700000000, 0, -5, None]),
    "click": st.sampled_from([0, 1, 1, 2, -1, None]),
    "w": st.sampled_from([1.0, 0.5, 0.0, -1.0, math.nan, math.inf, 1e39, 1e-60, None]),
    "x": st.sampled_from(["1.5", "", "NULL", "abc", "nan", "1e309", "-2e300", "\0", None]),
    "site": st.sampled_from(["", "NULL", "news", "größe", "a\nb", "a\0b", None]),
    "tags": st.none() | st.lists(st.sampled_from(["a", "b", "", "NULL", None]), max_size=3),
}


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(st.fixed_dictionaries(cells), max_size=12), block_bytes=st.sampled_from([256, 1 << 20]))
def test_every_row_of_a_parquet_log_is_a_row_or_is_kept_aside(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], block_bytes: int
):
    folder = tmp_path_factory.getbasetemp() / f"parquet-{next(FOLDERS)}"
    folder.mkdir()
    good = {"at": 1700000000, "click": 1, "w": 1.0, "x": "2", "site": "news", "tags": ["a"]}
    types = {"at": pa.int64(), "click": pa.int64(), "w": pa.float64(), "x": pa.string(), "site": pa.string(), "tags": pa.list_(pa.string())}
    pq.write_table(pa.Table.from_pylist([good, *rows], pa.schema(types)), folder / "log.parquet", row_group_size=5)
    result = run(folder, "log.parquet", block_bytes=block_bytes, tree={"format": "parquet"})
    numbers = ("at", "click", "w")
    texts = [row | {name: None if row[name] is None else str(row[name]) for name in numbers} for row in [good, *rows]]
    expected = [row_of(row) for row in texts]
    bad = [number for number, row in enumerate(expected, start=1) if row is None]
    assert (result.lines, sum(result.bad_lines.values())) == (len(rows) + 1, len(bad))
    assert rows_in(folder / "d") == [row for row in expected if row is not None]
    assert len(lines_aside(folder / "d", "00000-log.parquet.tsv")) == len(bad)
    shutil.rmtree(folder)


def made_or_refused(folder: Path, name: str, **options: Any) -> str:
    """What was said where it was refused: one line."""
    said = ""
    try:
        result = run(folder, name, **options)
    except UserError as error:
        said = str(error)
    assert "\n" not in said
    if not said:
        rows = sum(split.rows for split in result.manifest.splits.values())
        assert rows
        assert rows + sum(result.bad_lines.values()) == result.lines
    return said


@settings(max_examples=40, deadline=None)
@given(
    head=st.sampled_from([",".join(COLUMNS).encode() + b"\n", b"at,click\n", b"", b"\xef\xbb\xbf" + ",".join(COLUMNS).encode() + b"\r\n"]),
    body=st.binary(max_size=150) | text,
    how=st.sampled_from(PACKED),
)
@example(head=b"", body=b"\x1f\x8b\x08\x00", how="plain")
@example(head=b'"', body=b"\n" * 9, how="plain")
def test_a_file_of_anything_makes_a_data_set_or_is_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, head: bytes, body: bytes, how: str
):
    folder = tmp_path_factory.getbasetemp() / f"any-{next(FOLDERS)}"
    folder.mkdir()
    (folder / "log").write_bytes(packed(head + body, how))
    said = made_or_refused(folder, "log", block_bytes=60)
    assert not said or any(word in said for word in REFUSED), said
    shutil.rmtree(folder)


@settings(max_examples=40, deadline=None)
@given(damage=st.lists(st.tuples(st.floats(0, 1), st.integers(1, 255)), min_size=1, max_size=3), keep=st.sampled_from([1.0, 1.0, 0.9, 0.3]))
def test_a_damaged_parquet_log_is_refused_in_one_line_or_is_unharmed(
    tmp_path_factory: pytest.TempPathFactory, damage: list[tuple[float, int]], keep: float
):
    folder = tmp_path_factory.getbasetemp() / f"damaged-{next(FOLDERS)}"
    folder.mkdir()
    rows = [{"at": n, "click": n % 2, "w": 1.0, "x": str(n), "site": f"s{n % 7}", "tags": ["a", "b"]} for n in range(60)]
    pq.write_table(pa.Table.from_pylist(rows), folder / "log.parquet", row_group_size=25, write_page_checksum=True)
    data = bytearray((folder / "log.parquet").read_bytes())
    for place, change in damage:
        data[int(place * (len(data) - 1))] ^= change
    (folder / "log.parquet").write_bytes(data[: int(len(data) * keep)])
    said = made_or_refused(folder, "log.parquet", tree={"format": "parquet"})
    if not said:
        assert [row[0] for row in rows_in(folder / "d")] == [row["click"] for row in rows]
    shutil.rmtree(folder)
