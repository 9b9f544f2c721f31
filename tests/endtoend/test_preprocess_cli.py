"""tools/synthesize.py and tools/preprocess.py as a person runs them: what they print, and one line for each mistake."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
GOOD = "0" + "\t1" * 13 + "\t0badcafe" * 26 + "\n"


def run(tool: str, *arguments: object, cwd: Path = REPOSITORY) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(REPOSITORY / "tools" / tool), *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=1000
    )


def refused(*arguments: object) -> str:
    """The one line on stderr after the progress lines, of a run that must end with exit code 2 and no traceback."""
    done = run("preprocess.py", "criteo", *arguments)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("tools/preprocess.py: ")]
    assert len(lines) == 1
    assert done.stderr.splitlines()[-1] == lines[0]
    return lines[0].removeprefix("tools/preprocess.py: ")


def test_from_nothing_to_a_data_set(tmp_path):
    log, data = tmp_path / "log.tsv", tmp_path / "data"
    made = run("synthesize.py", "criteo", "--rows", 3000, "--seed", 1, "--output", log, "--bad-share", 0.01, "--truth", tmp_path / "t.npy")
    assert made.returncode == 0, made.stderr
    assert "Bayes-optimal on these rows: AUC 0." in made.stdout
    done = run("preprocess.py", "criteo", "--input", log, "--output", data, "--max-bad-share", 0.05)
    assert done.returncode == 0, done.stderr
    manifest = json.loads((data / "manifest.json").read_text())
    bad = sum(manifest["made_by"]["bad_lines"].values())
    assert sum(split["rows"] for split in manifest["splits"].values()) == 3000
    assert f"bad lines: {bad:,} of {3000 + bad:,}" in done.stdout
    assert f"--set data.path={data} " in done.stdout.splitlines()[-1]
    assert sorted(path.name for path in data.iterdir()) == ["manifest.json", "rejects", "test", "train", "validation", "vocabulary"]
    kept = (data / "rejects" / "00000-log.tsv.tsv").read_bytes().splitlines()
    assert len(kept) == 1 + bad
    number, raw = kept[1].split(b"\t")[1], kept[1].split(b"\t", 4)[4]
    assert log.read_bytes().split(b"\n")[int(number) - 1].startswith(raw)
    again = run("preprocess.py", "criteo", "--input", log, "--output", data, "--max-bad-share", 0.05)
    assert (again.returncode, str(data) in again.stdout) == (0, True)


def test_a_bad_line_is_named(tmp_path):
    log = tmp_path / "day_3.tsv"
    log.write_text(GOOD * 500 + GOOD.replace("\t1", "\tNaN", 1) + GOOD * 100)
    message = refused("--input", log, "--output", tmp_path / "d")
    assert message == (
        f"{log}:501: I1 is 'NaN', expected an integer or nothing (1 bad line of 601; stops above --max-bad-share 0.001);"
        f" bad lines are kept in {tmp_path}/d/rejects"
    )
    assert b"501\tinteger" in (tmp_path / "d" / "rejects" / "00000-day_3.tsv.tsv").read_bytes()


def test_a_bad_line_of_standard_input_is_named(tmp_path):
    log = gzip.compress((GOOD * 500 + GOOD.replace("\t1", "\tNaN", 1) + GOOD * 100).encode())
    command = [sys.executable, "tools/preprocess.py", "criteo", "--input", "-", "--output", str(tmp_path / "d"), "--split", "1,0,0"]
    done = subprocess.run(command, cwd=REPOSITORY, input=log, capture_output=True)
    assert done.returncode == 2
    assert b"tools/preprocess.py: -:501: I1 is 'NaN', expected an integer or nothing (1 bad line of 601" in done.stderr
    done = subprocess.run([*command, "--max-bad-share", "0.01"], cwd=REPOSITORY, input=log, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "d" / "rejects" / "00000--.tsv").read_bytes().split(b"\n")[1].startswith(b"-\t501\tinteger\t")


def test_a_log_of_another_format_stops_early(tmp_path):
    (tmp_path / "log").write_text('{"label": 1}\n' * 2_000_000)
    message = refused("--input", tmp_path / "log", "--output", tmp_path / "d", "--block-kb", 256, "--workers", 1)
    assert message.startswith(f"{tmp_path}/log:1: 1 field, expected 40 (")
    assert int(message.split("(")[1].split()[0].replace(",", "")) < 100_000


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


HEADER = ",".join(["label", *(f"I{i}" for i in range(1, 14)), *(f"C{i}" for i in range(1, 27))])


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("empty", b"", "/empty: "),
        ("score", GOOD[2:].encode() * 3, "no column 'label'"),
        ("only", HEADER.encode() + b"\n", "/only: "),
        ("typo", HEADER.replace("C7", "C77").encode() + b"\n", "'C77'"),
        ("lacks", HEADER.replace(",C7", "").encode() + b"\n", ":1: no column 'C7'"),
        ("twice", HEADER.replace("C7", "C8").encode() + b"\n", "two columns 'C8'"),
        ("cut.gz", gzip.compress(GOOD.encode() * 999)[:-20], "/cut.gz: "),
    ],
)
def test_a_mistake_in_the_input(tmp_path, name, data, said):
    assert said in refused("--input", write(tmp_path / name, data), "--output", tmp_path / "d")


def test_a_mistake_in_the_command(tmp_path):
    log = write(tmp_path / "log", GOOD.encode() * 50)
    assert "nowhere.tsv: " in refused("--input", tmp_path / "nowhere.tsv", "--output", tmp_path / "d")
    assert "day_*.tsv" in refused("--input", tmp_path / "day_*.tsv", "--output", tmp_path / "d")
    assert "--split" in refused("--input", log, "--output", tmp_path / "d", "--split", "0.8,0.3")
    assert "--min-count is 0" in refused("--input", log, "--output", tmp_path / "d", "--min-count", 0)
    assert f"{log}/d" in refused("--input", log, "--output", log / "d")
