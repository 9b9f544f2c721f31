"""Line ends within quoted fields: a row of several lines is one row, wherever a block ends, and a stray quote costs its own line."""

import csv
import gzip
import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from dmoe.data.prepare.source.log_files import MAX_ROW
from dmoe.data.prepare.source.record_ends import cut_at_record
from tests.unit.data.log.click_log import make, score, sites
from tests.unit.data.log.logs import data_bytes, read_split

SITES = ["a\nb", "plain", '"\n"', "x\r\ny", "\n", "a,\nb", 'say "hi"', "größe\n\n\n"]
ROWS = [(number % 2, SITES[number % len(SITES)], f"d{number % 3}") for number in range(80)]


def log_of(rows: list[tuple[int, str, str]], header: tuple[str, ...] = ("click", "site", "device")) -> str:
    file = io.StringIO(newline="")
    csv.writer(file, lineterminator="\n").writerows([header, *rows])
    return file.getvalue()


def kept_aside(folder: Path) -> list[list[bytes]]:
    (rejects,) = (folder / "rejects").iterdir()
    return [line.split(b"\t") for line in rejects.read_bytes().split(b"\n")[1:-1]]


@pytest.mark.parametrize("options", [{"block_bytes": 1}, {"block_bytes": 37, "workers": 3}, {"block_bytes": 1 << 20}])
@pytest.mark.parametrize("pack", [bytes, gzip.compress, lambda data: pa.Codec("zstd").compress(data, asbytes=True)])
def test_a_row_of_several_lines_is_one_row(tmp_path: Path, options: dict[str, Any], pack: Any):
    done = make(tmp_path, pack(log_of(ROWS).encode()), max_bad_share=0, **options)
    assert (done.lines, done.bad_lines) == (80, {})
    assert sites(tmp_path) == [site for _, site, _ in ROWS]
    assert [row["label"] for row in read_split(tmp_path / "d", "train")] == [label for label, _, _ in ROWS]


def test_a_log_to_score_is_read_the_same_way(tmp_path: Path):
    make(tmp_path, log_of(ROWS))
    done = score(tmp_path, log_of([*ROWS, (0, "new\nsite", "d1")]), block_bytes=20)
    assert done.lines == 81
    assert sites(tmp_path, "scores", "score") == [*(site for _, site, _ in ROWS), "rare"]


def test_names_of_columns_may_hold_line_ends(tmp_path: Path):
    header = ("click", "site\nof the page", "device")
    tree = {"categorical": [{"name": "site", "column": "site\nof the page"}, "device"]}
    done = make(tmp_path, "\ufeff" + log_of(ROWS, header) + "2,s,d\n" + log_of([], header), tree=tree)
    assert done.bad_lines == {"label": 1, "repeated header": 1}
    lines = log_of(ROWS, header).count("\n")
    assert [int(one[1]) for one in kept_aside(tmp_path / "d")] == [lines + 1, lines + 2]
    assert sites(tmp_path) == [site for _, site, _ in ROWS]


@pytest.mark.parametrize("block_bytes", [1, 50, 1 << 20])
def test_a_bad_row_is_named_by_its_first_line_and_kept_on_one(tmp_path: Path, block_bytes: int):
    planted = {5: '2,"a\nb",d\n', 30: '1,"a\r\nb\n",d,more\n', 60: '"1\n",s,d\n'}
    text, expected = "click,site,device\n", []
    for number, row in enumerate(ROWS):
        if number in planted:
            expected.append(text.count("\n") + 1)
            text += planted[number]
        text += log_of([row], ()).removeprefix("\n")
    done = make(tmp_path, text, block_bytes=block_bytes)
    assert done.bad_lines == {"label": 2, "fields": 1}
    kept = kept_aside(tmp_path / "d")
    assert [int(one[1]) for one in kept] == expected
    assert [one[4] for one in kept] == [rb'2,"a\nb",d', rb'1,"a\nb\n",d,more', rb'"1\n",s,d']


@pytest.mark.parametrize("block_bytes", [20, 1 << 20])
@pytest.mark.parametrize("stray", ['1,"never closed,d', '1,s,"', '1,"a"b,d', '"'])
@pytest.mark.parametrize("after", ["quoted", "plain", "empty"])
def test_a_stray_quote_costs_its_own_line(tmp_path: Path, block_bytes: int, stray: str, after: str):
    site = {"quoted": '"s1"', "plain": "s1", "empty": '""'}[after]
    rows = [f"{number % 2},{site},d{number % 5}" for number in range(40)]
    plain = "\n".join(["click,site,device", *rows]) + "\n"
    make(tmp_path, plain)
    whole = data_bytes(tmp_path / "d")
    text = "\n".join(["click,site,device", *rows[:20], stray, *rows[20:]]) + "\n"
    done = make(tmp_path, text, block_bytes=block_bytes, overwrite=True)
    assert done.bad_lines == {"fields": 1}
    assert [int(one[1]) for one in kept_aside(tmp_path / "d")] == [22]
    assert data_bytes(tmp_path / "d") == whole


def test_a_quote_is_looked_for_within_the_longest_row_alone(tmp_path: Path):
    """A row of a MiB is read, whatever the blocks; a quote that closes later is none."""
    half = ("y" * 1000 + "\n") * (MAX_ROW // 2002)
    long, longer = half * 2, half * 3
    body = log_of([(1, long, "d"), (0, "s", "d"), (1, long, "e")]) + f'0,"{longer}",d\n1,s,d\n'
    for block_bytes in (100_000, 64 << 20):
        done = make(tmp_path, body, block_bytes=block_bytes, max_bad_share=1, overwrite=True)
        assert sites(tmp_path) == [long, "s", long, "s"]
        # The lines of the one that is too long are each malformed.
        assert set(done.bad_lines) == {"fields"}
        assert [int(one[1]) for one in kept_aside(tmp_path / "d")][:1] == [
            log_of([(1, long, "d"), (0, "s", "d"), (1, long, "e")]).count("\n") + 1
        ]
        assert done.lines == 4 + longer.count("\n") + 1


def test_what_is_not_read_yet_decides_no_cut():
    text = b'1,"a\nb",c\n2,"d'
    first = text.index(b"2,")
    assert cut_at_record(text, b",", b'"', 1 << 20, ended=False) == first
    assert cut_at_record(text[: first - 3], b",", b'"', 1 << 20, ended=False) == 0
    assert cut_at_record(text, b",", b"", 1 << 20, ended=False) == first
    assert cut_at_record(text[:first] + b'"x"', b",", b'"', 1 << 20, ended=False) == first, "the quote may be one of two"
