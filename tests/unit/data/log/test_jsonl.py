"""JSON lines beside the CSV of the same log, and what is no row of them."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from dmoe.errors import UserError
from tests.unit.data.log.click_log import make, score, sites
from tests.unit.data.log.logs import data_bytes, make_rows, schema, write_csv
from tests.unit.data.log.logs import make as make_log
from tests.unit.data.log.test_quoted_line_ends import kept_aside

TREE = {"format": "jsonl"}


@pytest.mark.parametrize("options", [{}, {"block_bytes": 333, "workers": 3}])
@pytest.mark.parametrize("form", ["texts", "lists", "numbers", "absent keys"])
def test_json_lines_give_the_bytes_of_the_csv_of_the_same_log(tmp_path: Path, form: str, options: dict[str, Any]):
    rows = make_rows(300)
    write_csv(tmp_path / "log.csv", rows)
    whole = make_log(tmp_path / "csv", tmp_path / "log.csv")
    lines = []
    for row in rows:
        made: dict[str, Any] = dict(row)
        if form == "lists":
            made["tags"] = row["tags"].split("|") if row["tags"] else None
        if form == "absent keys":
            made = dict(reversed([(key, value) for key, value in row.items() if value]))
        text = json.dumps(made, ensure_ascii=form == "texts")
        if form == "numbers":
            for name in ("w", "age", "raw"):
                text = text.replace(f'"{name}": "{row[name]}"', f'"{name}": {row[name] or "null"}')
        lines.append(text + "\n")
    (tmp_path / "log.jsonl.gz").write_bytes(gzip.compress("".join(lines).encode()))
    found = make_log(tmp_path / "jsonl", tmp_path / "log.jsonl.gz", schema=schema(**TREE), **options)
    assert data_bytes(found) == data_bytes(whole)


@pytest.mark.parametrize("blank", [b"", b"\n", b"\r\n\r\n", b"\xef\xbb\xbf"])
def test_a_file_without_lines_changes_nothing(tmp_path: Path, blank: bytes):
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "1.jsonl").write_text("".join(json.dumps(row) + "\n" for row in make_rows(100)))
    alone = data_bytes(make_log(tmp_path / "alone", tmp_path / "logs", schema=schema(**TREE)))
    (tmp_path / "logs" / "2.jsonl").write_bytes(blank)
    assert data_bytes(make_log(tmp_path / "both", tmp_path / "logs", schema=schema(**TREE))) == alone


def test_a_token_is_the_text_of_its_value(tmp_path: Path):
    values = ["1", "1.0", '"1"', "9007199254740993", "123456789012345678901234567890", "1E5", "true", "null", '""', '"a\\nb\\u00e9"']
    make(tmp_path, "".join(f'{{"click": {n % 2}, "site": {one}, "device": "d"}}\n' for n, one in enumerate(values)), tree=TREE)
    expected = ["1", "1.0", "1", "9007199254740993", "123456789012345678901234567890", "1E5", "true", None, None, "a\nbé"]
    assert sites(tmp_path) == expected


@pytest.mark.parametrize("block_bytes", [1, 1 << 20])
def test_lines_that_are_no_rows_are_kept_aside_with_their_reason(tmp_path: Path, block_bytes: int):
    good = b'{"click": 1, "site": "s", "device": "d"}'
    bad = {
        b'{"click": 1, "site": "s", "site": "t"}': b"json",
        b'{"click": 1, "site": NaN}': b"json",
        b'{"click": 1, "site": "s"': b"json",
        b'[1, "s"]': b"json",
        b"": b"json",
        good + good: b"json",
        b'{"click": 1, "site": "\\ud800"}': b"json",
        b'{"click": 1, "site": "\xff"}': b"encoding",
        b'{"click": 1, "site": {"a": 1}}': b"nested",
        b'{"click": 1, "site": ["a"]}': b"nested",
        b'{"click": 1, "site": ' + b"[" * 50_000 + b"]" * 50_000 + b"}": b"json",
        b'{"site": "s"}': b"label",
    }
    lines = [one for line in bad for one in (good, line)] + [good + b"\r", b""]
    done = make(tmp_path, b"\n".join(lines), max_bad_share=0.6, tree=TREE, block_bytes=block_bytes)
    assert done.lines == len(lines) - 1
    found = kept_aside(tmp_path / "d")
    assert [(int(one[1]), one[2]) for one in found] == [(2 * place + 2, kind) for place, kind in enumerate(bad.values())]
    assert [one[4] for one in found] == [line[:4096] for line in bad]


def test_bags_are_lists_or_texts(tmp_path: Path):
    bag = {"name": "site", "pooling": "sum"}
    lines = '{"click": 1, "site": [1, "a|b", null, true]}\n{"click": 0, "site": "a|b"}\n{"click": 0, "site": []}\n{"click": 0}\n'
    make(tmp_path, lines, tree=TREE | {"categorical": [bag]})
    from tests.unit.data.log.logs import read_split

    lengths = [len(row["site"]) for row in read_split(tmp_path / "d", "train")]
    assert lengths == [3, 1, 1, 1]
    rows = read_split(tmp_path / "d", "train")
    assert rows[0]["site"][1] == rows[1]["site"][0]
    make(tmp_path, '{"click": 1, "site": [["a"]]}\n' + lines, tree=TREE | {"categorical": [bag]}, max_bad_share=0.5, overwrite=True)
    assert [one[1:3] for one in kept_aside(tmp_path / "d")] == [[b"1", b"nested"]]


def test_a_log_to_score_needs_no_label(tmp_path: Path):
    make(tmp_path, '{"click": 1, "site": "s", "device": "d"}\n{"click": 0, "site": "t"}\n', tree=TREE)
    score(tmp_path, '{"device": "d", "site": "t"}\n{"site": "new"}\n{}\n')
    assert sites(tmp_path, "scores", "score") == ["t", "rare", None]


def test_a_key_that_no_first_line_has_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """The label's is a mistake; a feature's may be rare."""
    lines = '{"clicks": 1, "sites": "s", "device": "d"}\n'
    with pytest.raises(UserError, match=r"log\.csv: .*'click'.*'clicks'"):
        make(tmp_path, lines, tree=TREE)
    make(tmp_path, lines.replace("clicks", "click"), tree=TREE)
    said = capsys.readouterr().err
    assert "'site'" in said
    assert "'sites'" in said


@pytest.mark.parametrize("key", [{"delimiter": ";"}, {"columns": ["click", "site"]}])
def test_what_only_text_has_is_refused(tmp_path: Path, key: dict[str, Any]):
    with pytest.raises(UserError, match="jsonl"):
        make(tmp_path, "{}", tree=TREE | key)
