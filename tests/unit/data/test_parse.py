"""The parser agrees with the documented grammar on any bytes, wherever blocks are cut."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dmoe.data.prepare.bad_lines import BadLines
from dmoe.data.prepare.engines.engine import Threads
from dmoe.data.prepare.parse.front_ends import front_for
from dmoe.data.prepare.parse.typed_kernels import eight_hex_digits
from dmoe.data.prepare.parse.typed_lines import diagnose, layout_of
from dmoe.data.prepare.parse.typed_text import GROUP_ROWS, TypedText
from dmoe.data.prepare.rejects import MAX_LINE, Reject
from dmoe.data.prepare.schema import load_schema
from dmoe.data.prepare.source.line_blocks import Block
from dmoe.data.prepare.source.log_files import File, find_files
from dmoe.data.prepare.write.parts import Part, parse_files, read_batches
from tests.unit.data.reference import well_formed, without_blank_end

CRITEO = load_schema("criteo")
LAYOUT = layout_of(File("", 0, 0, (), tuple(CRITEO.columns or ()), (), b"\t"), CRITEO, labelled=True)
GOOD = b"1\t" + b"\t".join([b"", b"-1", b"0", b"5", b"2147483647", *[b"7"] * 8] + [b"0badcafe"] * 24 + [b"", b"ffffffff"])


def with_field(number: int, value: bytes) -> bytes:
    fields = GOOD.split(b"\t")
    fields[number] = value
    return b"\t".join(fields)


def parse_file(path: Path, text: bytes, block_bytes: int) -> tuple[list[Part], list[Reject], list[list[int | None]]]:
    """Parts, malformed lines, and the rows' raw values (None where missing)."""
    path.mkdir(exist_ok=True)
    (path / "log.tsv").write_bytes(text)
    files, _, labelled = find_files([str(path / "log.tsv")], CRITEO, "criteo")
    for old in (path / "work").glob("*"):
        old.unlink()
    watch = BadLines(files, 1.0)
    parts = parse_files(files, front_for(CRITEO, labelled, False, block_bytes), str(path / "work"), Threads(1), watch.add)
    rows: list[list[int | None]] = []
    for part in parts:
        for batch in read_batches(part, ["@label", *(one.stored for one in (*CRITEO.dense, *CRITEO.categorical[:26]))]):
            rows += zip(*(column.to_pylist() for column in batch.columns), strict=True)
    return parts, list(watch.rejects(0)), [list(row) for row in rows]


def expected_row(line: bytes) -> list[int | None]:
    fields = line.removesuffix(b"\r").split(b"\t")
    return [int(field, 10 if i < 14 else 16) if field else None for i, field in enumerate(fields)]


BAD = [
    ("fields", GOOD[:-9], "39 fields, expected 40"),
    ("fields", GOOD + b"\t", "41 fields, expected 40"),
    ("fields", b"", "1 field, expected 40"),
    ("label", with_field(0, b"2"), "label is '2', expected 0 or 1"),
    ("label", with_field(0, b""), "label is '', expected 0 or 1"),
    ("label", with_field(0, b"01"), "label is '01', expected 0 or 1"),
    ("integer", with_field(7, b"NaN"), "I7 is 'NaN', expected an integer or nothing"),
    ("integer", with_field(1, b"1.5"), "I1 is '1.5', expected an integer or nothing"),
    ("integer", with_field(2, b"-"), "I2 is '-', expected an integer or nothing"),
    ("integer", with_field(3, b" 1"), "I3 is ' 1', expected an integer or nothing"),
    ("integer", with_field(13, b"2147483648"), "I13 is '2147483648', expected an integer of 32 bits"),
    ("integer", with_field(13, b"-2147483648"), "I13 is '-2147483648', expected an integer of 32 bits"),
    ("integer", with_field(13, b"9" * 40), "I13 is '999999999999999999999...', expected an integer of 32 bits"),
    ("token", with_field(14, b"0badcafx"), "C1 is '0badcafx', expected 1 to 8 hex digits or nothing"),
    ("token", with_field(39, b"012345678"), "C26 is '012345678', expected 1 to 8 hex digits or nothing"),
    ("token", GOOD + b"\r\r", "C26 is 'ffffffff\\r', expected 1 to 8 hex digits or nothing"),
    ("encoding", with_field(20, b"caf\xc3\xa9"), "byte 0xc3 at column"),
    ("encoding", with_field(20, b"00\x0000"), "byte 0x00 at column"),
    ("long", with_field(5, b"0" * MAX_LINE), "the line is longer than 4096 bytes"),
    ("long", b"x" * 70_000, "the line is longer than 4096 bytes"),
]


@pytest.mark.parametrize("block_bytes", [50, 1 << 20])
@pytest.mark.parametrize(("kind", "line", "reason"), BAD, ids=lambda value: value if isinstance(value, str) else "")
def test_a_malformed_line_is_told_by_kind_number_and_bytes(tmp_path, kind, line, reason, block_bytes):
    if len(line) > MAX_LINE:
        block_bytes = max(block_bytes, 3000)
    parts, rejects, rows = parse_file(tmp_path, GOOD + b"\n" + line + b"\n" + GOOD + b"\r\n", block_bytes)
    assert [(reject.line, reject.kind) for reject in rejects] == [(2, kind)]
    assert rejects[0].reason.startswith(reason)
    assert rejects[0].raw == line.removesuffix(b"\r")[:MAX_LINE]
    assert rows == [expected_row(GOOD)] * 2
    assert sum(part.lines for part in parts) == 3


@pytest.mark.parametrize(
    ("end", "rows", "kind"),
    [
        (b"", 2, None),
        (b"\r\n", 2, None),
        (b"\n\n", 2, None),
        (b"\r\n\r\n\x1a", 2, None),
        (b"\n" * 300, 2, None),
        (b"\n\n" + GOOD, 3, "fields"),
    ],
    ids=["no line end", "windows line end", "blank line", "windows blank line and ^Z", "blank lines over blocks", "blank line within"],
)
def test_the_end_of_a_file(tmp_path, end, rows, kind):
    _, rejects, got = parse_file(tmp_path, GOOD + b"\n" + GOOD + end, 100)
    assert len(got) == rows
    assert [reject.kind for reject in rejects] == ([kind] if kind else [])


@pytest.mark.parametrize("cut", [1, 7, 9, 30, 150])
@pytest.mark.parametrize("block_bytes", [50, 1 << 20])
def test_a_file_that_ends_within_a_line_loses_that_line_only(tmp_path, cut, block_bytes):
    _, rejects, rows = parse_file(tmp_path, GOOD + b"\n" + GOOD[:-cut], block_bytes)
    assert rows == [expected_row(GOOD)]
    assert [(reject.line, reject.kind) for reject in rejects] == [(2, "truncated")]


field = st.sampled_from([b"", b"0", b"1", b"-5", b"12ab34cd", b"FFFFFFFF", b"2147483647", b"NaN", b"1.5", b"\r", b"\xff", b"\0", b"-"])
mostly_good = st.tuples(st.integers(0, 39), field | st.binary(max_size=9)).map(lambda change: with_field(*change))
joined = st.lists(field, min_size=38, max_size=42).map(b"\t".join)
lines = st.lists(st.just(GOOD) | mostly_good | st.binary(max_size=60) | joined, max_size=8)


@settings(max_examples=60, deadline=None)
@given(text=lines.map(b"\n".join), block_bytes=st.sampled_from([150, 1 << 20]))
@example(text=GOOD + b"\n" + b"\n" * 50 + GOOD, block_bytes=40)
def test_every_line_is_a_row_or_kept_aside_and_none_is_both(tmp_path_factory, text, block_bytes):
    text = GOOD + b"\n" + text + b"\n"
    _, rejects, rows = parse_file(tmp_path_factory.getbasetemp() / "fuzz", text, block_bytes)
    all_lines = without_blank_end(text).split(b"\n")[:-1]
    assert rows == [expected_row(line) for line in all_lines if well_formed(line)]
    refused = [(n, line.removesuffix(b"\r")) for n, line in enumerate(all_lines, 1) if not well_formed(line)]
    assert [(r.line, r.raw) for r in rejects] == refused


@settings(max_examples=300, deadline=None)
@given(line=mostly_good | st.binary(max_size=80))
def test_diagnose_is_the_grammar(line):
    assert (diagnose(line.replace(b"\n", b""), LAYOUT) is None) == well_formed(line.replace(b"\n", b""))


def test_a_group_never_has_more_rows_than_codes():
    line = b"0" + b"\t" * 39 + b"\n"
    text = line * (GROUP_ROWS + 5)
    file = File("", len(text), 0, (), tuple(CRITEO.columns or ()), (), b"\t")
    found = TypedText(CRITEO, True, False, len(text)).encode(file, lambda: Block(text, 0, len(text), True))
    assert [batch.num_rows for batch in found.batches] == [GROUP_ROWS, 5]
    assert all(len(batch.column(name).dictionary) == 1 for batch in found.batches for name in batch.schema.names[1:])


def test_eight_hex_digits_are_read_at_once_as_python_reads_them():
    draw = np.random.default_rng(0)
    digits = np.frombuffer(b"0123456789abcdefABCDEF", np.uint8)
    words = draw.choice(digits, (2000, 8))
    # Any byte in any place makes no number, but for the digits themselves.
    words[: 256 * 4, :] = draw.choice(digits, (256 * 4, 8))
    words[np.arange(1024), draw.integers(0, 8, 1024)] = np.arange(1024) % 256
    for word in words:
        text = word.tobytes()
        good = all(byte in digits for byte in text)
        assert eight_hex_digits(word.view(np.uint64)[0]) == (int(text, 16) if good else -1), text
