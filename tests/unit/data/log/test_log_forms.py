"""Forms that logs come in: joined parts, one column, marks and empty lines; and what is said of a bad line."""

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from dmoe.data.prepare.rejects import shown
from dmoe.errors import UserError
from tests.unit.data.log.click_log import HEADER, ROWS, clicks, make, refusal, score, sites, text

# A header again.


@pytest.mark.parametrize(
    ("again", "line"),
    [(HEADER, 62), ('"click","site","device"', 62), (f"\ufeff{HEADER}\r", 62), ('\ufeffclick,"site",device', 62)],
    ids=["as it is", "quoted", "of a part with a mark", "quoted behind a mark"],
)
@pytest.mark.parametrize("positive", [None, "1"])
@pytest.mark.parametrize("block_bytes", [40, 1 << 20])
def test_a_header_within_the_log_is_a_bad_line_of_its_own_kind(
    tmp_path: Path, again: str, line: int, positive: str | None, block_bytes: int
):
    tree = {"label": {"column": "click", "positive": positive}} if positive else {}
    done = make(tmp_path, text() + text(header=again), block_bytes=block_bytes, tree=tree)
    assert done.bad_lines == {"repeated header": 1}
    assert clicks(tmp_path) == [int(click) for click, _, _ in ROWS] * 2
    (rejects,) = (tmp_path / "d" / "rejects").iterdir()
    found = rejects.read_bytes().split(b"\n")[1].split(b"\t")
    assert found[1:3] == [str(line).encode(), b"repeated header"]
    with pytest.raises(UserError, match=rf"log\.csv:{line}: .*1 .*121"):
        make(tmp_path, text() + text(header=again), tree=tree, overwrite=True, max_bad_share=0)


def test_a_log_without_a_header_knows_one_by_the_schemas_names(tmp_path: Path):
    tree = {"header": False, "columns": ["click", "site", "device"], "label": {"column": "click", "positive": "1"}}
    done = make(tmp_path, text().partition("\n")[2] + text(), tree=tree)
    assert done.bad_lines == {"repeated header": 1}
    assert len(clicks(tmp_path)) == 120


def test_a_log_to_score_has_no_score_for_a_header(tmp_path: Path):
    make(tmp_path, text())
    part = "site,device\n" + "".join(f"{site},{device}\n" for _, site, device in ROWS)
    assert score(tmp_path, part + part).bad_lines == {"repeated header": 1}
    assert sites(tmp_path, "scores", "score") == [site for _, site, _ in ROWS] * 2


def test_a_header_in_another_order_ends_the_run(tmp_path: Path):
    """What follows would be read as other columns."""
    other = "device,site,click\n" + "".join(f"{device},{site},{int(click)}\n" for click, site, device in ROWS)
    tree = {"label": {"column": "click", "positive": "1"}}
    with pytest.raises(UserError, match=r"log\.csv:62: .*header"):
        make(tmp_path, text() + other, max_bad_share=1, tree=tree)
    assert not (tmp_path / "d" / "manifest.json").exists()


# One column.


@pytest.mark.parametrize("block_bytes", [3, 1 << 20])
def test_a_log_of_one_column_keeps_its_rows_in_step_with_its_lines(tmp_path: Path, block_bytes: int):
    """An empty line is a row without a value there, also the last one."""
    make(tmp_path, text())
    values = ["s1", "", '""', "s2", "", "s3", '"s4"', '"s0', "s1", "", ""]
    done = score(tmp_path, "site\n" + "\n".join(values) + "\n", block_bytes=block_bytes, vocabulary=one_feature(tmp_path))
    assert done.bad_lines == {"fields": 1}
    assert done.lines == len(values)
    assert sites(tmp_path, "scores", "score") == ["s1", None, None, "s2", None, "s3", "s4", "s1", None, None]
    (rejects,) = (tmp_path / "scores" / "rejects").iterdir()
    assert rejects.read_bytes().split(b"\n")[1].split(b"\t")[1] == b"9"


def one_feature(folder: Path) -> str:
    """A data set of one feature takes the place of the first."""
    make(folder, text(), tree={"categorical": ["site"]}, overwrite=True)
    return str(folder / "d")


def test_a_log_of_one_column_of_windows(tmp_path: Path):
    one_feature(tmp_path)
    score(tmp_path, b'\xef\xbb\xbfsite\r\ns1\r\n\r\n""\r\ns2')
    assert sites(tmp_path, "scores", "score") == ["s1", None, None, "s2"]


# Ends and marks.


@pytest.mark.parametrize("end", ["\n", "\n\n\n", "\r\n\r\n", "\x1a", "\n" * 500])
@pytest.mark.parametrize("block_bytes", [7, 1 << 20])
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_empty_lines_at_the_end_are_no_lines(tmp_path: Path, end: str, block_bytes: int, pack: Callable[[bytes], bytes]):
    done = make(tmp_path, pack((text() + end).encode()), block_bytes=block_bytes, max_bad_share=0)
    assert (done.lines, sum(done.bad_lines.values())) == (60, 0)


def test_an_empty_line_within_is_a_bad_line(tmp_path: Path):
    done = make(tmp_path, text() + "\n\n1,s1,d1\n\n")
    assert (done.lines, done.bad_lines) == (63, {"fields": 2})


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("block_bytes", [1, 1 << 20])
def test_a_byte_order_mark_is_no_part_of_a_value(tmp_path: Path, header: bool, block_bytes: int):
    """Nor is one of a part that was joined to another."""
    tree = {} if header else {"header": False, "columns": ["site", "click", "device"]}
    body = "".join(f"{site},{int(click)},{device}\n" for click, site, device in ROWS)
    make(tmp_path, "\ufeff" + "site,click,device\n" * header + body + "\ufeff" + body, tree=tree, block_bytes=block_bytes)
    assert sites(tmp_path) == [site for _, site, _ in ROWS] * 2


# What is said.


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("—", "'—'"),
        ("日本", "'日本'"),
        ("\x1b[31m—", "'\\x1b[31m—'"),
        ("a\u202eb", "'a\\u202eb'"),
        ("\x9b2J", "'\\x9b2J'"),
        ("\\x", "'\\x'"),
    ],
)
def test_a_value_is_readable_and_cannot_reach_the_terminal(tmp_path: Path, value: str, found: str):
    log = f"click,site,device,price\n1,s,d,1\n0,s,d,{value}\n"
    assert f"log.csv:3: price is {found}, expected" in refusal(tmp_path, log, tree={"dense": ["price"]})
    (rejects,) = (tmp_path / "d" / "rejects").iterdir()
    fields = rejects.read_bytes().split(b"\n")[1].split(b"\t")
    assert f"price is {found}".encode() in fields[3]
    assert fields[4] == f"0,s,d,{value}".encode(), "the line itself is kept as it is"
    assert shown(value.encode()) == found


def test_bytes_that_are_no_text_are_escaped():
    assert shown(b"\xff\xfeab\n\0") == r"'\xff\xfeab\n\x00'"
    assert shown("größer als gedacht und noch mehr".encode()) == "'größer als gedacht un...'"


@pytest.mark.parametrize("label", ["True", "yes", "-1", "F"])
def test_another_label_gets_a_hint_at_positive(tmp_path: Path, label: str):
    said = refusal(tmp_path, text(label=lambda click: label))
    assert f"log.csv:2: click is '{label}', expected 0 or 1" in said
    assert "positive: ..." in said
    assert "positive" not in refusal(tmp_path, text(label=lambda click: "12"), overwrite=True)


def test_a_bad_line_below_the_header_gets_a_hint(tmp_path: Path):
    units = text().replace("\n", "\n,[name],[type]\n", 1)
    assert "log.csv:2: click " in refusal(tmp_path, units)
    assert "units" in refusal(tmp_path, units, overwrite=True)
    later = text() + ",s1,d1\n"
    assert "units" not in refusal(tmp_path, later, overwrite=True)


def test_another_delimiter_is_told(tmp_path: Path):
    said = refusal(tmp_path, text().replace(",", ";"))
    assert "log.csv:1: no column 'click'" in said
    assert "';'" in said


def test_a_header_of_control_characters_cannot_reach_the_terminal(tmp_path: Path):
    assert "click\\x1b[2J" in refusal(tmp_path, text(header="click\x1b[2J,,"))


def test_a_first_line_that_is_empty_is_told(tmp_path: Path):
    assert "log.csv:1: " in refusal(tmp_path, "\n" + text())
