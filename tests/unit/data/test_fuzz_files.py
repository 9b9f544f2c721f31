"""Whole files of any bytes: every line is a row or is counted and kept aside, as a plain-Python reference has it; nothing crashes."""

import gzip
import itertools
import shutil
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dmoe.data.prepare.pipeline import preprocess
from dmoe.errors import UserError
from dmoe.testing.criteo import FIELDS
from tests.log_files import NO_TEXT, PACKED, criteo, packed
from tests.unit.data.reference import reference, well_formed, without_blank_end
from tests.unit.data.test_parse import GOOD, with_field

FOLDERS = itertools.count()
REFUSED = ("no well-formed row", "empty, no rows to read", "no column ", "truncated or broken", ":1: ", *NO_TEXT)

changed = st.tuples(st.integers(0, 39), st.sampled_from([b"", b"0", b"1", b"-7", b"12ab34cd", b"ABC", b"NaN", b"\xff", b"-", b'"1"', b" "]))
piece = st.just(GOOD) | changed.map(lambda change: with_field(*change)) | st.binary(max_size=30)
ends = st.sampled_from([b"\n", b"\n", b"\r\n", b"\n\n", b"\r"])
text = st.lists(st.tuples(piece, ends).map(b"".join), max_size=12).map(b"".join)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A file of mostly sound lines, in which bytes were then changed, lost or put in, anywhere."""
    data = bytearray(GOOD + b"\n" + draw(text) + GOOD + b"\n" * draw(st.integers(0, 1)))
    for _ in range(draw(st.integers(0, 3))):
        at, kind = draw(st.integers(len(GOOD) + 1, max(len(GOOD) + 1, len(data) - 1))), draw(st.sampled_from("clp"))
        data[at : at + (kind != "p")] = b"" if kind == "l" else draw(st.binary(min_size=1, max_size=2))
    return bytes(data)


def lines_of(data: bytes) -> list[tuple[bytes, bool]]:
    """The lines, each with whether it is whole; a last one without an end must show all digits of its last token."""
    *lines, last = without_blank_end(data).split(b"\n")
    out = [(line, well_formed(line)) for line in lines]
    if last:
        token = last.rstrip(b"\r").rsplit(b"\t", 1)[-1]
        out.append((last, well_formed(last) and (last.endswith(b"\r") or len(token) in (0, 8))))
    return out


@pytest.mark.slow
@settings(max_examples=40)
@given(files=st.lists(damaged(), min_size=1, max_size=3), block_bytes=st.sampled_from([60, 1000, 1 << 20]), zipped=st.booleans())
@example(files=[GOOD + b"\n" + GOOD + b"\r"], block_bytes=60, zipped=False)
@example(files=[GOOD + b"\n" + GOOD[:-1]], block_bytes=60, zipped=True)
def test_every_line_of_every_file_is_a_row_or_is_kept_aside(tmp_path_factory, files, block_bytes, zipped):
    folder = tmp_path_factory.getbasetemp() / f"files-{next(FOLDERS)}"
    folder.mkdir()
    for number, data in enumerate(files):
        name, data = (f"day_{number}.gz", gzip.compress(data)) if zipped else (f"day_{number}", data)
        (folder / name).write_bytes(data)
    result = preprocess(
        criteo([f"{folder}/day_*"], f"{folder}/d", min_count=1, split="1,0,0", max_bad_share=1, block_bytes=block_bytes, workers=1)
    )
    expected = [lines_of(data) for data in files]
    good = [line for lines in expected for line, whole in lines if whole]
    bad = [[(n, line.removesuffix(b"\r")) for n, (line, whole) in enumerate(lines, 1) if not whole] for lines in expected]
    assert (result.lines, sum(result.bad_lines.values())) == (sum(map(len, expected)), sum(map(len, bad)))
    table = pa.concat_tables([pq.read_table(path) for path in sorted((folder / "d" / "train").iterdir())])
    rows = reference(good, 1, ("1", "0", "0"), "time", 0)["splits"]["train"]
    assert table.num_rows == len(good)
    for column in table.column_names:
        np.testing.assert_array_equal(table[column].to_numpy(), np.array([row[column] for row in rows]), err_msg=column)
    kinds: Counter[str] = Counter()
    for number, refused in enumerate(bad):
        kept = folder / "d" / "rejects" / f"{number:05d}-day_{number}{'.gz' * zipped}.tsv"
        assert kept.exists() == bool(refused)
        found = []
        for line in kept.read_bytes().split(b"\n")[1:-1] if refused else ():
            _, at, kind, _, raw = line.split(b"\t", 4)
            kinds[kind.decode()] += 1
            found.append((int(at), raw))
        assert found == refused
    assert kinds == result.bad_lines
    shutil.rmtree(folder)


header = st.sampled_from(
    [b"", b"\t".join(name.encode() for name in FIELDS) + b"\n", b"label,I1\n", b"\xef\xbb\xbflabel\n", GOOD[2:] + b"\n"]
)


@settings(max_examples=80)
@given(head=header, body=st.binary(max_size=200) | text, how=st.sampled_from(PACKED))
@example(head=b"", body=b"\x1f\x8b\x08\x00", how="plain")
@example(head=b"", body=b"\x28\xb5\x2f\xfd", how="plain")
@example(head=b"\x00\t\n", body=b"\n" * 99, how="zstd")
def test_a_file_of_anything_makes_a_data_set_or_is_refused_in_one_line(tmp_path_factory, head, body, how):
    folder = tmp_path_factory.getbasetemp() / f"any-{next(FOLDERS)}"
    folder.mkdir()
    (folder / "log").write_bytes(packed(head + body, how))
    refused, result = "", None
    try:
        result = preprocess(criteo([f"{folder}/log"], f"{folder}/d", min_count=1, max_bad_share=1, workers=1, block_bytes=500))
    except UserError as error:
        refused = str(error)
    if result:
        rows = sum(split.rows for split in result.manifest.splits.values())
        assert rows + sum(result.bad_lines.values()) == result.lines
        assert rows
    else:
        assert "\n" not in refused
        assert any(said in refused for said in REFUSED), refused
    shutil.rmtree(folder)
