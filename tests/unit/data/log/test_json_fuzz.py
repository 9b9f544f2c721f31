"""JSON lines of any bytes: each is a row or is kept aside, as Python's json and a plain reference have it; and a file of anything makes a
data set or is refused."""

import gzip
import itertools
import json
import shutil
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dmoe.data.prepare.source import MAX_ROW
from tests.log_files import NO_TEXT, PACKED, packed
from tests.unit.data.log.test_log_fuzz import COLUMNS, lines_aside, made_or_refused, row_of, rows_in, run
from tests.unit.data.reference import without_blank_end

FOLDERS = itertools.count()
JSONL = {"format": "jsonl"}
GOOD = {"at": "1700000000", "click": "1", "w": "0.5", "x": "2.25", "site": '"news"', "tags": '["a", "b"]', "unused": '{"a": [1, null]}'}
VALUES = [
    "0",
    "1.0",
    "-1",
    '"1"',
    "1e400",
    "1e39",
    "NaN",
    "01",
    "+1",
    "true",
    "null",
    '""',
    '"NULL"',
    '"gr\\u00f6\\u00dfe"',
    '"größe"',
    '"a\\nb"',
]
VALUES += ['"\\ud800"', "[]", '["a", null, "NULL", 2]', '"a||b"', "[[1]]", '{"a": 1}', '"open', "[1,]", '"tab\t"', "", "1 2"]
REFUSED = ("no well-formed row", "empty, no rows to read", "no column '", "truncated or broken", "two columns", *NO_TEXT)


def refuse(text: str) -> None:
    raise ValueError(text)


def row_of_line(line: bytes) -> tuple[Any, ...] | None:
    """The row of the reference, from what Python's json makes of the line."""
    pairs: list[list[tuple[str, Any]]] = []

    def keep(found: list[tuple[str, Any]]) -> tuple[Any, ...]:
        pairs.append(found)
        return tuple(found)

    try:
        text = line.removesuffix(b"\r").removeprefix(b"\xef\xbb\xbf").decode()
        found = json.loads(text, parse_int=str, parse_float=str, parse_constant=refuse, object_pairs_hook=keep)
        json.dumps(pairs, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, tuple) or len(line) > MAX_ROW:
        return None
    keys, values = [key for key, _ in pairs[-1]], dict(pairs[-1])
    if any(keys.count(name) > 1 for name in COLUMNS if name != "unused"):
        return None
    row: dict[str, Any] = {}
    for name in COLUMNS[:-1]:
        value = values.get(name)
        if isinstance(value, tuple) or (
            isinstance(value, list) and (name != "tags" or any(isinstance(one, list | tuple) for one in value))
        ):
            return None
        bare = [str(one).lower() if isinstance(one, bool) else one for one in (value if isinstance(value, list) else [value])]
        row[name] = bare if isinstance(value, list) else bare[0]
    return row_of(row)


def as_line(values: dict[str, str]) -> bytes:
    return ("{" + ", ".join(f'"{name}": {value}' for name, value in values.items()) + "}").encode()


def changed(change: tuple[str, str]) -> bytes:
    return as_line(GOOD | dict([change]))


line = (
    st.just(as_line(GOOD))
    | st.tuples(st.sampled_from(COLUMNS), st.sampled_from(VALUES)).map(changed)
    | st.sampled_from(COLUMNS).map(lambda name: as_line({key: value for key, value in GOOD.items() if key != name}))
    | st.sampled_from(COLUMNS).map(lambda name: as_line(GOOD)[:-1] + f', "{name}": 1}}'.encode())
    | st.binary(max_size=20)
)
text = st.lists(st.tuples(line, st.sampled_from([b"\n", b"\n", b"\r\n", b"\n\n", b" \n"])).map(b"".join), max_size=14).map(b"".join)


@settings(max_examples=60, deadline=None)
@given(body=text, last=line | st.just(b""), block_bytes=st.sampled_from([40, 300, 1 << 20]), zipped=st.booleans())
@example(body=as_line(GOOD | {"site": '"a\\nb"'}) + b"\r\n\xff\n", last=as_line(GOOD)[:-1], block_bytes=40, zipped=True)
def test_every_line_is_a_row_or_is_kept_aside(
    tmp_path_factory: pytest.TempPathFactory, body: bytes, last: bytes, block_bytes: int, zipped: bool
):
    folder = tmp_path_factory.getbasetemp() / f"json-{next(FOLDERS)}"
    folder.mkdir()
    data = as_line(GOOD) + b"\n" + body + last
    (folder / "log.jsonl").write_bytes(gzip.compress(data) if zipped else data)
    result = run(folder, "log.jsonl", block_bytes=block_bytes, tree=JSONL)
    lines = without_blank_end(data).split(b"\n")
    lines = lines[:-1] if not lines[-1] else lines
    expected = [row_of_line(one) for one in lines]
    bad = [number for number, row in enumerate(expected, start=1) if row is None]
    assert (result.lines, sum(result.bad_lines.values())) == (len(lines), len(bad))
    assert rows_in(folder / "d") == [row for row in expected if row is not None]
    assert lines_aside(folder / "d", "00000-log.jsonl.tsv") == bad
    shutil.rmtree(folder)


@settings(max_examples=60, deadline=None)
@given(
    head=st.sampled_from([as_line(GOOD) + b"\n", b"", b"{}\n", b"\xef\xbb\xbf{"]),
    body=st.binary(max_size=150) | text,
    how=st.sampled_from(PACKED),
)
@example(head=b"{", body=b"\n" * 9, how="plain")
@example(head=b"[", body=b"[" * 100_000, how="plain")
def test_a_file_of_anything_makes_a_data_set_or_is_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, head: bytes, body: bytes, how: str
):
    folder = tmp_path_factory.getbasetemp() / f"any-json-{next(FOLDERS)}"
    folder.mkdir()
    (folder / "log").write_bytes(packed(head + body, how))
    said = made_or_refused(folder, "log", block_bytes=60, tree=JSONL)
    assert not said or any(word in said for word in REFUSED), said
    shutil.rmtree(folder)
