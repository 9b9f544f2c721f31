"""The compiled reader of text logs beside plain Python: the csv module's fields, `float`, and dictionaries in the order of the tokens."""

import csv
import math
import random
import re
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dmoe.data.prepare.count.count_tables import TextCounts
from dmoe.data.prepare.parse.text_block import TextBlock
from dmoe.data.prepare.rejects import BOM, REORDERED, REPEATED
from dmoe.data.prepare.schema import Schema, parse_schema
from dmoe.data.prepare.source.log_files import MAX_ROW, File
from dmoe.data.prepare.tokens.token_ids import TokenIds
from tests.unit.data.reference import records_of

COLUMNS = ("click", "x", "site", "tags", "unused")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
# At 2^53 and 10^22 the short way ends; 9007199254740993 lies between two doubles.
NUMBERS = [
    *("0", "-0", "+7", "1.", ".5", "00012.500", "1e5", "1E+05", "1e-5", "0e999", "1e00005", "1e000005", "1e400", "-1e400"),
    *("9007199254740992", "9007199254740993", "9007199254740991e22", "1e22", "1e23", "1e-22", "1e-23", "123456789012345678.5"),
    *("0.1234567890123456789", "4.9e-324", "2.2250738585072014e-308", "1.7976931348623157e308", "1.7976931348623159e308"),
    *("nan", "inf", "-inf", "1_0", "0x1", " 1", "1 ", "1e", "e1", ".", "+", "-", "1e+", "+-1", "1.2.3", "1d", "1,5", "NULL", "-1"),
]
TOKENS = ["", "NULL", "NUL", "x" * 8, "x" * 9, "x" * 16, "x" * 17, "größe", "日本語", "a|b", "||a||", "NULL|a|b|c", "say hi", "n" * 300]


def schema(delimiter: str = ",", quote: str | None = '"', missing: tuple[str, ...] = ("NULL", "-1"), **bag: Any) -> Schema:
    tags = {"name": "tags", "separator": "|", "pooling": "sum"} | bag
    tree = {"label": "click", "dense": ["x"], "categorical": ["site", tags], "missing": list(missing)}
    return parse_schema(tree | {"delimiter": delimiter, "quote": quote}, "schema.yaml")


def block(piece: bytes, of: Schema, number: int = 1) -> TextBlock:
    return TextBlock(File("log.csv", 1, 1, (), COLUMNS, tuple(of.used()), of.delimiter_bytes), of, piece, number)


def records(piece: bytes, of: Schema) -> list[tuple[int, bytes]]:
    return records_of(piece, (of.delimiter or ",").encode(), (of.quote or "").encode())


def reference(piece: bytes, of: Schema) -> tuple[dict[int, list[str]], dict[int, str]]:
    """(fields of the rows by line, kind of the malformed rows)."""
    rows, bad = {}, {}
    for number, line in records(piece, of):
        raw = line.removesuffix(b"\r").removeprefix(BOM)
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            bad[number] = "encoding"
            continue
        if "\0" in text or "\r" in text.replace("\r\n", ""):
            bad[number] = "encoding"
            continue
        options: dict[str, Any] = {"quotechar": of.quote, "strict": True} if of.quote else {"quoting": csv.QUOTE_NONE}
        try:
            fields = next(csv.reader([text], delimiter=of.delimiter or ",", **options), [""])
        except csv.Error:
            fields = []
        if fields == list(COLUMNS):
            bad[number] = REPEATED
        elif sorted(fields) == sorted(COLUMNS):
            bad[number] = REORDERED
        elif len(fields) == len(COLUMNS):
            rows[number] = fields
        else:
            bad[number] = "fields"
    return rows, bad


field = (
    st.sampled_from(NUMBERS + TOKENS)
    | st.floats(allow_nan=False).map(repr)
    | st.integers(-(10**20), 10**20).map(str)
    | st.text(st.sampled_from("a\"',;|\t é\r\0"), max_size=6)
    | st.sampled_from(["a\nb", "\n", 'a\r\n"b"', 'a\n"'])
)
wrapped = st.tuples(field, st.sampled_from(["{}", "{}", '"{}"', '"{}', '{}"', '"{}"z', "'{}'"]), st.booleans()).map(
    lambda one: one[1].format(one[0].replace('"', '""') if one[2] else one[0])
)
header = st.tuples(st.permutations(COLUMNS) | st.just(list(COLUMNS)), st.sampled_from(["{}", '"{}"'])).map(
    lambda one: [one[1].format(name) for name in one[0]]
)
marked = st.tuples(st.sampled_from(["", "", "\ufeff"]), st.lists(wrapped, min_size=4, max_size=6) | header).map(
    lambda one: [one[0] + one[1][0], *one[1][1:]]
)
line = st.tuples(marked, st.sampled_from([b"", b"", b"", b"\xff", b"\r"]))
ends = st.sampled_from([b"\n", b"\n", b"\r\n"])


@settings(max_examples=150, deadline=None)
@given(
    lines=st.lists(st.tuples(line, ends), min_size=1, max_size=12),
    delimiter=st.sampled_from([",", ";", "\t"]),
    quote=st.sampled_from(['"', "'", None]),
    last=st.booleans(),
    missing=st.sampled_from([(), ("NULL",), ("NULL", "-1", "a|b")]),
    most=st.sampled_from([None, 1, 2]),
)
@example([((["1", "2", '"a', 'b"', "z"], b""), b"\n"), ((["1", "2", '"a,b"', '""""', '""'], b""), b"\r\n")], ",", '"', True, (), None)
@example([((["1", "2", "größe", "a", "z"], b"\xff"), b"\n"), ((["1", "2", "größe", "a", "z"], b""), b"\n")], ",", None, False, (), None)
def test_rows_fields_tokens_and_numbers_are_those_of_plain_python(
    lines: list[Any], delimiter: str, quote: str | None, last: bool, missing: tuple[str, ...], most: int | None
):
    piece = b"".join(delimiter.join(fields).encode() + more + end for (fields, more), end in lines)
    piece = piece if last or piece == b"\n" else piece[:-1]
    of = schema(delimiter, quote, missing, **({"max_values": most} if most else {}))
    rows, bad = reference(piece, of)
    found = block(piece, of, 7)
    assert (found.line - 6).tolist() == list(rows)
    assert {reject.line - 6: reject.kind for reject in found.rejects} == bad
    raw = {number: one.removesuffix(b"\r").removeprefix(BOM) for number, one in records(piece, of)}
    assert [found.raw(row) for row in range(len(rows))] == [raw[number] for number in rows]
    assert [reject.raw for reject in found.rejects] == [raw[number] for number in bad]
    none = {"", *missing}
    x, site, tags = ([fields[place] for fields in rows.values()] for place in (1, 2, 3))
    coded = found.tokens("site")
    assert coded.to_pylist() == [None if one in none else one for one in site]
    assert coded.dictionary.to_pylist() == list(dict.fromkeys(one for one in site if one not in none))
    lists, cut = found.bags("tags", "|", most)
    kept = [[] if one in none else [tag for tag in one.split("|") if tag not in none] for one in tags]
    assert lists.to_pylist() == [one[:most] for one in kept]
    assert lists.flatten().dictionary.to_pylist() == list(dict.fromkeys(tag for one in kept for tag in one[:most]))
    assert cut == sum(len(one) > (most or math.inf) for one in kept)
    value_N, given_N = found.numbers("x")
    assert found.missing("x").tolist() == [one in none for one in x]
    for text, value, given_one in zip(x, value_N.tolist(), given_N.tolist(), strict=True):
        finite = text not in none and NUMBER.fullmatch(text) is not None and math.isfinite(float(text))
        assert given_one == finite
        assert (value.hex(), given_one) == ((float(text) if finite else 0.0).hex(), finite)


def test_every_double_is_read_to_the_bit():
    draw = random.Random(0)
    floats = [math.ldexp(draw.random(), draw.randrange(-1070, 1020)) for _ in range(3_000)] + [draw.gauss(0, 100) for _ in range(3_000)]
    texts = [form.format(one) for one in floats for form in ("{!r}", "{:.3f}", "{:.17e}", "{:.9g}")] + [
        one for one in NUMBERS if NUMBER.fullmatch(one)
    ]
    found = block("".join(f"1,{text},a,b,z\n" for text in texts).encode(), schema(missing=()))
    value_N, given_N = found.numbers("x")
    for text, value, given_one in zip(texts, value_N.tolist(), given_N.tolist(), strict=True):
        assert given_one == math.isfinite(float(text))
        assert not given_one or value.hex() == float(text).hex(), text


def test_lines_and_tables_that_outgrow_what_is_held_at_a_time():
    """A line longer than a chunk, one too long, and more tokens than the first tables have room for."""
    long, longest = "y" * 200_000, "z" * MAX_ROW
    sites = [f"site{number % 5_000}" for number in range(9_000)] + [long, long + "y", long]
    piece = "".join(f'1,2,"{site}",t,z\n' for site in sites) + f"1,2,{longest},t,z\n1,2,last,t,z"
    found = block(piece.encode(), schema())
    assert found.tokens("site").to_pylist() == [*sites, "last"]
    assert [(reject.line, reject.kind) for reject in found.rejects] == [(9_004, "long")]


@pytest.mark.parametrize("seed", [0, 1])
def test_counts_and_ids_are_those_of_a_counter(seed: int):
    """Tokens of all sizes around a word of eight bytes, the empty one among them, added over and over in other orders."""
    draw = random.Random(seed)
    texts = [bytes(draw.choice(b"ab\0\xff") for _ in range(draw.choice([0, 1, 2, 7, 8, 9, 15, 16, 17, 40]))) for _ in range(6_000)]
    table, expected = TextCounts(), Counter()
    for _ in range(5):
        some = list(dict.fromkeys(draw.sample(texts, 3_000)))
        counts = np.array([draw.randrange(3) for _ in some], np.int64)
        table.add(pa.array(some, pa.large_binary()), counts)
        expected.update({token: count for token, count in zip(some, counts.tolist(), strict=True) if count})
    assert table.used == len(expected)
    tokens, counts = (table.table()[name].combine_chunks() for name in ("token", "count"))
    assert dict(zip(tokens.to_pylist(), counts.to_pylist(), strict=True)) == expected
    ids = TokenIds(tokens)
    known = {token: 2 + place for place, token in enumerate(tokens.to_pylist())}
    asked = [*texts, *(token + b"more" for token in texts[:100])]
    assert ids.look_up(pa.array(asked, pa.large_binary())).tolist() == [known.get(token, 1) for token in asked]
