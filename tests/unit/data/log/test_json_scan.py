"""What compiled code reads of JSON lines is what Python's json reads of them."""

import json
import random
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dmoe.data.prepare.parse import json_block
from dmoe.data.prepare.parse.json_block import JsonBlock
from dmoe.data.prepare.parse.json_scan import scan
from dmoe.data.prepare.schema import parse_schema
from dmoe.data.prepare.source.log_files import MAX_ROW, File, json_object

USED = ("click", "x", "site", "tags", "bag")
TREE: dict[str, Any] = {
    "format": "jsonl",
    "label": "click",
    "missing": ["NULL"],
    "dense": ["x"],
    "categorical": ["site", {"name": "tags", "pooling": "sum", "max_values": 2}, {"name": "bag", "separator": "|", "pooling": "mean"}],
}
SCHEMA = parse_schema(TREE, "s")
FILE = File("log", 0, 0, (), USED, USED)
GOOD = (
    '{"click": 1, "x": -1.50e+3, "site": "größe", "tags": ["a", 2, null, true], "other": {"a": [1, {"b": null}], "c": []}, "bag": "p|q"}'
).encode()


def read(piece: bytes) -> list[Any]:
    """All that a block says of its rows."""
    block = JsonBlock(FILE, SCHEMA, piece, 7)
    rows = range(len(block.line))
    said: list[Any] = [block.lines, block.line.tolist(), block.rejects, [block.raw(row) for row in rows]]
    for name in USED:
        if name not in SCHEMA.lists:
            value_N, given_N = block.numbers(name)
            said += [block.tokens(name).to_pylist(), block.tokens(name).dictionary.to_pylist(), value_N.tolist(), given_N.tolist()]
            said += [block.missing(name).tolist(), [block.value(name, row) for row in rows]]
    for one in SCHEMA.categorical:
        if one.pooling:
            column, cut = block.bags(one.name, one.separator, one.max_values)
            said += [column.to_pylist(), column.values.dictionary.to_pylist(), cut]
    return said


def by_python(piece: bytes) -> list[Any]:
    """The same where no line is scanned."""

    def nothing(*given: Any) -> Any:
        text, found = scan(*given)
        found.plain[:] = False
        return text, found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_block, "scan", nothing)
        return read(piece)


NUMBERS = [
    b"0",
    b"-0",
    b"1",
    b"-1.5",
    b"1E5",
    b"1.50",
    b"1e400",
    b"12345678901234567890123",
    b"01",
    b"1.",
    b".5",
    b"+1",
    b"-",
    b"1e",
    b"1_0",
]
WORDS = [b"true", b"false", b"null", b"nul", b"True", b"NaN", b"Infinity", b"-Infinity", b""]
TEXTS = [
    b'""',
    b'"NULL"',
    b'"a"',
    b'"a|b||c"',
    b'"a\\"b"',
    b'"\\u00e9"',
    b'"\\ud800"',
    b'"tab\there"',
    b'"\xff"',
    b'"\xc3\xa9"',
    b'"open',
    b'"\\x"',
]
NESTED = [
    b"[]",
    b"[ ]",
    b'["a"]',
    b'[1,"b" , null,true]',
    b'["NULL",""]',
    b"[[1]]",
    b'[{"a":1}]',
    b"{}",
    b'{"a":1}',
    b"[1,]",
    b"[,1]",
    b"[1 2]",
    b'{"a"}',
]
NESTED += [
    b'{"a":1,}',
    b'{"a":{"b":[]},"c":[[],{}]}',
    b"[" * 70 + b"]" * 70,
    b"[" * 63 + b"1" + b"]" * 63,
    b'{"a":[1}',
    b'{"a":]}',
    b'["\\u0041"]',
]
value = st.sampled_from([*NUMBERS, *WORDS, *TEXTS, *NESTED])
key = st.sampled_from([b'"click"', b'"x"', b'"site"', b'"tags"', b'"bag"', b'"other"', b'"c\\u006cick"', b'""', b'"\xc3\xa9"', b"click"])
space = st.sampled_from([b"", b"", b"", b" ", b"\t", b"\r", b"\x0c"])
pair = st.tuples(space, key, space, st.sampled_from([b":", b":", b":", b"", b"::"]), space, value, space).map(b"".join)
line = st.tuples(
    st.sampled_from([b"", b"", b" ", b"\xef\xbb\xbf"]),
    st.sampled_from([b"{", b"{", b"{", b"[", b""]),
    st.lists(pair, max_size=6).map(b",".join),
    st.sampled_from([b"}", b"}", b"}", b"}}", b",}", b""]),
    st.sampled_from([b"", b"\r", b" ", b"x", b"{}"]),
).map(b"".join)


@settings(max_examples=400, deadline=None)
@given(lines=st.lists(st.just(GOOD) | line | st.binary(max_size=12), min_size=1, max_size=8), ended=st.booleans())
@example(lines=[GOOD, b"\xff", GOOD], ended=False)
@example(lines=[b'{"tags":"a","bag":["b","c|d"]}', b'{"tags":["z"],"bag":"e|f"}', b"{}"], ended=True)
@example(lines=[b'{"click":1,"click":1}', b'{"other":1,"other":2}', b'{"other":{"a":1,"a":2}}'], ended=True)
@example(lines=[GOOD, b'{"bag": "\\u0041|b", "tags": ["\\u0042", "c", "d"]}', GOOD], ended=True)
def test_a_line_means_what_python_s_json_says(lines: list[bytes], ended: bool):
    piece = b"\n".join(lines) + b"\n" * ended
    if piece:
        assert read(piece) == by_python(piece)


@settings(max_examples=200, deadline=None)
@given(lines=st.lists(line, min_size=1, max_size=8))
def test_a_scanned_line_is_one_that_the_full_parser_takes(lines: list[bytes]):
    piece = b"\n".join(lines) + b"\n"
    text, found = scan(piece, USED, frozenset(SCHEMA.lists), MAX_ROW)
    for place, one in enumerate(piece.split(b"\n")[:-1]):
        if not found.plain[place]:
            continue
        values = dict(json_object(one.removesuffix(b"\r")))
        for column, name in enumerate(USED):
            if found.items[column, place] < 0:
                taken = bytes(text[found.first[column, place] : found.end[column, place]]).decode()
                expected = values.get(name)
                assert taken == ("" if expected is None else str(expected).lower() if isinstance(expected, bool) else expected)


def test_plain_lines_are_scanned_and_others_are_not():
    """Or the test above would compare Python's json with itself."""
    hard = GOOD.replace(b'"p|q"', b'"p\\u007cq"')
    _, found = scan(b"\n".join([GOOD, hard, GOOD]), USED, frozenset(SCHEMA.lists), MAX_ROW)
    assert found.plain.tolist() == [True, False, True]
    assert read(GOOD + b"\n")[5:] != []


def test_rows_of_many_keys_in_any_order():
    draw = random.Random(0)
    names = [f"key {n}" for n in range(300)]
    schema = parse_schema({"format": "jsonl", "label": names[0], "categorical": names[1:]}, "s")
    file, rows = File("log", 0, 0, (), tuple(names), tuple(names)), []
    for number in range(20):
        keys = draw.sample(names, 280)
        rows.append({key: f"{number}-{key}" for key in keys})
    block = JsonBlock(file, schema, "".join(json.dumps(row) + "\n" for row in rows).encode(), 1)
    for name in names:
        assert block.tokens(name).to_pylist() == [row.get(name) for row in rows]
    assert isinstance(block.tokens(names[1]), pa.DictionaryArray)
