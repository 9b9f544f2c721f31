"""A raw log to score: its rows, and the malformed lines that have no score, kept where told."""

from pathlib import Path
from typing import Any

import pytest

from dmoe.data.dataset.manifest import load_manifest
from dmoe.data.prepare.options import Options
from dmoe.data.prepare.pipeline import preprocess
from dmoe.data.prepare.schema import parse_schema
from dmoe.errors import UserError
from dmoe.serve.score_raw import made_from
from tests.unit.data.test_parse import GOOD, with_field

BAD = {"criteo": with_field(1, b"1.5"), "log": b"1,s1,$5"}
WELL = {"criteo": GOOD, "log": b"1,s1,5"}


@pytest.fixture(params=["criteo", "log"])
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The data set whose vocabulary is taken is `d`."""
    kind: str = request.param
    write(tmp_path / "train", kind, [WELL[kind]] * 20)
    common: dict[str, Any] = {"min_count": 1, "split": "1,0,0", "workers": 1}
    if kind == "criteo":
        preprocess(Options([str(tmp_path / "train")], str(tmp_path / "d"), schema="criteo", **common))
    else:
        schema = parse_schema({"label": "click", "dense": ["price"], "categorical": ["site"]}, "schema.yaml")
        preprocess(Options([str(tmp_path / "train")], str(tmp_path / "d"), schema=schema, where="schema.yaml", **common))
    return kind


def write(path: Path, kind: str, lines: list[bytes]) -> str:
    header = [b"click,site,price"] if kind == "log" else []
    path.write_bytes(b"\n".join([*header, *lines]) + b"\n")
    return str(path)


def scored_rows(log: list[str], vocabulary: Path, max_bad_share: float, rejects: Path | None) -> int:
    with made_from(log, str(vocabulary), max_bad_share, rejects and str(rejects)) as made:
        assert made is not None
        return load_manifest(made).splits["score"].rows


def test_malformed_lines_are_kept_as_preprocessing_keeps_them(tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]):
    log = write(tmp_path / "log", kind, [WELL[kind], BAD[kind], WELL[kind]])
    assert scored_rows([log], tmp_path / "d", 0.5, tmp_path / "kept") == 2
    header, line, rest = (tmp_path / "kept" / "00000-log.tsv").read_bytes().split(b"\n")
    assert header == b"file\tline\tkind\treason\traw"
    path, number, _, _, raw = line.split(b"\t", 4)
    assert (path, number, raw, rest) == (log.encode(), b"3" if kind == "log" else b"2", BAD[kind], b"")
    assert f"{tmp_path}/kept" in capsys.readouterr().err


def test_a_log_that_is_mended_leaves_no_lines_of_before_and_others_stay(tmp_path: Path, kind: str):
    log, other = write(tmp_path / "log", kind, [WELL[kind], BAD[kind]]), tmp_path / "kept" / "00000-other.tsv"
    scored_rows([log], tmp_path / "d", 0.5, tmp_path / "kept")
    other.write_text("of another log")
    write(tmp_path / "log", kind, [WELL[kind]] * 2)
    assert scored_rows([log], tmp_path / "d", 0.5, tmp_path / "kept") == 2
    assert list((tmp_path / "kept").iterdir()) == [other]


@pytest.mark.parametrize("kept", [True, False])
def test_too_many_point_at_a_folder_that_is_there(tmp_path: Path, kind: str, kept: bool):
    log = write(tmp_path / "log", kind, [WELL[kind], BAD[kind]])
    with pytest.raises(UserError) as caught:
        scored_rows([log], tmp_path / "d", 0.1, tmp_path / "kept" if kept else None)
    message = str(caught.value)
    assert "1 bad line of 2" in message
    assert "dmoe-score-" not in message
    assert message.endswith(f"bad lines are kept in {tmp_path}/kept" if kept else "--rejects F keeps the bad lines")
    assert (tmp_path / "kept" / "00000-log.tsv").exists() == kept


def test_every_row_of_a_log_without_labels_to_read_is_scored(tmp_path: Path, kind: str):
    for label in (b"", b"-1"):
        log = write(tmp_path / "log", kind, [label + WELL[kind][1:]] * 5)
        assert scored_rows([log], tmp_path / "d", 0, None) == 5


@pytest.mark.parametrize("option", ["--vocabulary", "--rejects"])
def test_what_goes_with_a_log_is_refused_without_one(option: str):
    given = {"--vocabulary": ("d", None), "--rejects": (None, "kept")}[option]
    with pytest.raises(UserError, match=option), made_from(None, given[0], 0, given[1]):
        pass
