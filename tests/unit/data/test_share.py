"""Shares of the parsing, taken by processes of their own, make the bytes that one process makes."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from dmoe.data.inputs import find_inputs
from dmoe.data.options import Options
from dmoe.data.preprocess import parts_folder, preprocess
from dmoe.data.share import parse_share, read_share

from dmoe.errors import UserError
from tests.log_files import contents, write_logs

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_logs(tmp_path_factory.mktemp("logs"), 500, scale=0.001)


def options(logs: Path, output: Path) -> Options:
    return Options([str(logs)], str(output), min_count=3, max_bad_share=0.5, workers=1, rows_per_shard=500, block_bytes=20_000)


def test_each_share_parses_blocks_of_its_own_and_the_first_makes_the_data_set(logs, tmp_path):
    preprocess(options(logs, tmp_path / "whole"))
    made = options(logs, tmp_path / "shared")
    folder = Path(parts_folder(made, find_inputs(made.inputs)))
    parsed: list[set[str]] = []
    for index in (2, 1, 0):
        before = {path.name for path in folder.glob("*.part")}
        parse_share(made, read_share(f"{index}/3"))
        parsed.append({path.name for path in folder.glob("*.part")} - before)
    assert all(len(names) >= 4 for names in parsed), "the work is shared"
    written = {path: path.stat().st_mtime_ns for path in folder.glob("*.part")}
    shutil.copytree(folder, tmp_path / "kept")
    preprocess(made)
    assert contents(tmp_path / "shared") == contents(tmp_path / "whole")
    assert {path.name for path in written} == {path.name for path in (tmp_path / "kept").glob("*.part")} == set().union(*parsed)


def test_share_0_waits_for_a_share_that_comes_later_and_a_share_again_leaves_the_data_set(logs, tmp_path):
    preprocess(options(logs, tmp_path / "whole"))

    def start(*share: str) -> "subprocess.Popen[str]":
        command = [
            sys.executable,
            "tools/preprocess.py",
            "criteo",
            "--input",
            str(logs),
            "--output",
            str(tmp_path / "shared"),
            "--share",
            *share,
        ]
        command += ["--min-count", "3", "--max-bad-share", "0.5", "--workers", "1", "--rows-per-shard", "500", "--block-kb", "20"]
        return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    first = start("0/2")
    assert first.stderr is not None
    assert any("share 0 of 2 is parsed" in line for line in first.stderr)
    assert first.poll() is None, "it waits"
    assert not (tmp_path / "shared/manifest.json").exists()
    second = start("1/2", "--stay")
    assert second.wait() == 0
    assert (tmp_path / "shared/manifest.json").exists(), "it stayed until the data set was made"
    assert first.wait() == 0
    assert start("1/2", "--stay").wait() == 0
    shared, whole = contents(tmp_path / "shared"), contents(tmp_path / "whole")
    shared.pop("manifest.json")
    whole.pop("manifest.json")
    assert shared == whole


@pytest.mark.parametrize("text", ["2/2", "1", "-1/2", "0/0", "a/b"])
def test_a_share_that_there_is_not(text):
    with pytest.raises(UserError, match="expected I/N"):
        read_share(text)


def test_standard_input_has_no_shares(tmp_path):
    with pytest.raises(UserError, match="standard input has no shares"):
        parse_share(Options(["-"], str(tmp_path)), read_share("0/2"))
