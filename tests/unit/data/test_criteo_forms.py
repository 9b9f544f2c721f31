"""Forms that Criteo's logs come in: joined parts, marks and empty lines, and labels that a log to score lacks."""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dmoe.data.dataset.manifest import load_manifest
from dmoe.data.prepare import stages
from dmoe.data.prepare.parse.typed_lines import diagnose, layout_of
from dmoe.data.prepare.parse.typed_text import TypedText
from dmoe.data.prepare.pipeline import Result, preprocess
from dmoe.data.prepare.schema import load_schema
from dmoe.data.prepare.source.blank_end import BLANK_END
from dmoe.data.prepare.source.line_blocks import Block
from dmoe.data.prepare.source.log_files import File, find_files
from dmoe.errors import UserError
from dmoe.testing.criteo import FIELDS
from tests.log_files import criteo
from tests.unit.data.test_continue import Killed
from tests.unit.data.test_parse import CRITEO, GOOD, with_field

LINES = [with_field(0, b"%d" % (n % 3 == 0)).replace(b"0badcafe", b"%x" % (n % 7 + 1), 1) for n in range(60)]
HEADER = "\t".join(FIELDS).encode()
LABELS = [int(n % 3 == 0) for n in range(60)]


def joined(*lines: bytes) -> bytes:
    return b"".join(line + b"\n" for line in lines)


def comma(data: bytes) -> bytes:
    return data.replace(b"\t", b",")


def unlabelled(data: bytes) -> bytes:
    return joined(*(line.partition(b"\t")[2] for line in data.splitlines()))


def make(folder: Path, data: bytes, name: str = "log", output: str = "d", **options: Any) -> Result:
    (folder / name).write_bytes(data)
    settings = {"min_count": 1, "split": "1,0,0", "max_bad_share": 0.1, "workers": 1} | options
    return preprocess(criteo([str(folder / name)], str(folder / output), **settings))


def score(folder: Path, data: bytes, **options: Any) -> Result:
    return make(folder, data, "score", "scores", vocabulary=str(folder / "d"), scoring=True, overwrite=True, **options)


def column(folder: Path, split: str, name: str) -> list[Any]:
    return pa.concat_tables([pq.read_table(path) for path in sorted((folder / split).iterdir())])[name].to_pylist()


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (joined(HEADER, *LINES, HEADER, *LINES), 62),
        (joined(*LINES, HEADER, *LINES), 61),
        (joined(HEADER, *LINES, b"\xef\xbb\xbf" + HEADER + b"\r", *LINES), 62),
        (comma(joined(HEADER, *LINES, b'"' + HEADER.replace(b"\t", b'"\t"').upper() + b'"', *LINES)), 62),
    ],
    ids=["of joined parts", "behind a part without one", "of a part with a mark", "quoted CSV"],
)
@pytest.mark.parametrize("block_bytes", [300, 1 << 20])
def test_a_header_within_the_log_is_a_bad_line_of_its_own_kind(tmp_path: Path, data: bytes, line: int, block_bytes: int):
    done = make(tmp_path, data, block_bytes=block_bytes)
    assert done.bad_lines == {"repeated header": 1}
    assert column(tmp_path / "d", "train", "label") == LABELS * 2
    (rejects,) = (tmp_path / "d" / "rejects").iterdir()
    assert rejects.read_bytes().split(b"\n")[1].split(b"\t")[1:3] == [str(line).encode(), b"repeated header"]


def test_a_log_to_score_has_no_score_for_a_header(tmp_path: Path):
    make(tmp_path, joined(*LINES))
    part = comma(unlabelled(joined(HEADER, *LINES)))
    done = score(tmp_path, part + part)
    assert done.bad_lines == {"repeated header": 1}
    assert load_manifest(str(tmp_path / "scores")).splits["score"].rows == 120


def test_a_header_in_another_order_ends_the_run(tmp_path: Path):
    """I1 and I2 change places: what follows would be well-formed, and wrong."""
    other = HEADER.replace(b"I1\tI2", b"I2\tI1")
    with pytest.raises(UserError, match=r"log:62: .*header"):
        make(tmp_path, joined(HEADER, *LINES, other, *LINES), max_bad_share=1)
    assert not (tmp_path / "d" / "manifest.json").exists()


@pytest.mark.parametrize("block_bytes", [50, 300, 1 << 20])
@pytest.mark.parametrize("change", [bytes, comma, unlabelled], ids=["tabs", "commas", "without a label"])
def test_a_byte_order_mark_is_no_part_of_a_value(tmp_path: Path, block_bytes: int, change: Callable[[bytes], bytes]):
    make(tmp_path, joined(*LINES))
    done = score(tmp_path, b"\xef\xbb\xbf" + change(joined(*LINES)), block_bytes=block_bytes)
    assert (done.lines, sum(done.bad_lines.values())) == (60, 0)
    assert column(tmp_path / "scores", "score", "C1") == column(tmp_path / "d", "train", "C1")


@pytest.mark.parametrize(
    ("end", "bad"),
    [(b"\n", 0), (b"\r\n\r\n", 0), (b"\x1a", 0), (b"\n" * (BLANK_END - 1), 0), (b"\n" * (BLANK_END + 9), 10), (b"\n\nx\n\n", 3)],
    ids=["one", "of Windows", "^Z", "as many as are left out", "more", "not at the end"],
)
@pytest.mark.parametrize("block_bytes", [3_000, 1 << 20])
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_empty_lines_at_the_end_are_no_lines(tmp_path: Path, end: bytes, bad: int, block_bytes: int, pack: Callable[[bytes], bytes]):
    done = make(tmp_path, pack(joined(*LINES) + end), block_bytes=block_bytes, max_bad_share=1)
    assert (done.lines, sum(done.bad_lines.values())) == (60 + bad, bad)
    assert column(tmp_path / "d", "train", "label") == LABELS


@pytest.mark.parametrize("label", [b"", b"-1", b"?", b"2", b"0.5", b"\r"])
@pytest.mark.parametrize("block_bytes", [300, 1 << 20])
def test_a_log_to_score_needs_no_label_that_can_be_read(tmp_path: Path, label: bytes, block_bytes: int, capsys: pytest.CaptureFixture[str]):
    make(tmp_path, joined(*LINES))
    done = score(tmp_path, joined(*(label + line[1:] for line in LINES)), block_bytes=block_bytes)
    assert (done.lines, sum(done.bad_lines.values())) == (60, 0)
    assert column(tmp_path / "scores", "score", "C1") == column(tmp_path / "d", "train", "C1")
    manifest = load_manifest(str(tmp_path / "scores"))
    assert (manifest.splits["score"].labelled, manifest.splits["score"].positives) == (False, 0)
    assert "days" not in manifest.made_by
    assert "60 of 60 rows have no label" in capsys.readouterr().err


def test_labels_that_can_be_read_are_kept(tmp_path: Path):
    make(tmp_path, joined(*LINES))
    score(tmp_path, joined(*LINES))
    assert column(tmp_path / "scores", "score", "label") == LABELS
    score(tmp_path, joined(*LINES, b"-1" + LINES[0][1:]))
    assert not load_manifest(str(tmp_path / "scores")).splits["score"].labelled


def test_what_was_parsed_to_train_is_not_taken_to_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """One log, one folder for the work: to train, its bad label is a bad line; to score, it is none."""
    make(tmp_path, joined(*LINES))
    log = tmp_path / "next"
    log.write_bytes(joined(*LINES, b"-1" + LINES[0][1:]))
    common: dict[str, Any] = {"max_bad_share": 0.1, "workers": 1, "work": str(tmp_path / "w"), "vocabulary": str(tmp_path / "d")}

    def killed(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(stages, "write_shards", killed)
        with pytest.raises(Killed):
            preprocess(criteo([str(log)], str(tmp_path / "e"), **common))
    assert not preprocess(criteo([str(log)], str(tmp_path / "f"), scoring=True, **common)).bad_lines


label = st.sampled_from([b"", b"0", b"1", b"-1", b"7", b"True", b"\r", b"1\r", b"\r1", b" ", b"\xff", b"\0", b"9" * 5000]) | st.binary(
    max_size=4
)


@settings(max_examples=200, deadline=None)
@given(labels=st.lists(label, min_size=1, max_size=5), last=st.booleans(), end=st.sampled_from([b"", b"\n", b"\r\n"]))
@example(labels=[b"1\r"], last=True, end=b"\n")
@example(labels=[b"\r1"], last=True, end=b"")
def test_the_parser_and_the_grammar_agree_on_any_label(labels: list[bytes], last: bool, end: bytes):
    names = [*FIELDS[1:], "label"] if last else list(FIELDS)
    file = File("", 0, 0, (), tuple(names), (), b"," if last else b"\t")
    layout = layout_of(file, CRITEO, labelled=True, any_label=True)
    bare = [one.replace(b"\n", b"").replace(layout.delimiter, b"") for one in labels]
    rest = GOOD.partition(b"\t")[2]
    lines = [comma(rest) + b"," + one if last else one + b"\t" + rest for one in bare]
    text = b"\n".join(lines) + end
    lines = text.split(b"\n")[: len(lines)]
    found = TypedText(CRITEO, True, True, 4000).encode(file, lambda: Block(text, 0, len(text), True))
    well = [diagnose(line, layout, terminated=bool(end) or n < len(lines) - 1) is None for n, line in enumerate(lines)]
    given_labels = [line.removesuffix(b"\r").split(layout.delimiter)[-1 if last else 0] for line in lines]
    kept = [one for one, good in zip(given_labels, well, strict=True) if good]
    assert [one for batch in found.batches for one in batch.column("@label").to_pylist()] == [int(one == b"1") for one in kept]
    assert found.seen.unread["label"] == sum(one not in (b"0", b"1") for one in kept)
    assert len(found.rejects) == well.count(False)


def test_the_layout_says_what_comes_before_the_data(tmp_path: Path):
    for name, data, expected in (
        ("bare", joined(*LINES), (0, 0)),
        ("marked", b"\xef\xbb\xbf" + joined(*LINES), (3, 0)),
        ("headed", joined(HEADER, *LINES), (len(HEADER) + 1, 1)),
        ("both", b"\xef\xbb\xbf" + joined(HEADER, *LINES), (len(HEADER) + 4, 1)),
    ):
        (tmp_path / name).write_bytes(data)
        (found,), _, _ = find_files([str(tmp_path / name)], load_schema("criteo"), "criteo")
        assert (found.header_bytes, found.header_lines) == expected, name
