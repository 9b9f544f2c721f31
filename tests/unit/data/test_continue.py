"""A run that is killed at any instant continues, and the bytes are those of an undisturbed run."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from dmoe.data.prepare.options import Options
from dmoe.data.prepare.pipeline import preprocess
from dmoe.errors import UserError
from dmoe.testing.synthesize import synthesize
from tests.log_files import contents, criteo
from tests.unit.data.log.logs import TREE, make_rows, write_avazu

REPOSITORY = Path(__file__).parents[3]


class Killed(BaseException):
    pass


@pytest.fixture(scope="module")
def log(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("log") / "log.tsv"
    synthesize(str(path), 1500, seed=4, scale=0.001, bad_share=0.01)
    return path


def options(log: Path, output: Path, **changes) -> Options:
    small = {"min_count": 3, "max_bad_share": 0.5, "workers": 1, "rows_per_shard": 500, "row_group_rows": 128, "block_bytes": 100_000}
    return criteo(inputs=[str(log)], output=str(output), **{**small, **changes})


def test_killed_at_renames(log, tmp_path, monkeypatch):
    """Whatever a run makes becomes visible by a rename, so these are the states that a kill can leave, but for .tmp files."""
    preprocess(options(log, tmp_path / "whole"))
    expected = contents(tmp_path / "whole")
    rename, left = os.replace, [0]

    def counting(source, target):
        left[0] -= 1
        if left[0] == 0:
            raise Killed
        rename(source, target)

    monkeypatch.setattr(os, "replace", counting)
    output, kills = tmp_path / "killed", 0
    while True:
        # Every life gets one rename further than the one before it: vocabularies, for one, are finished all together.
        left[0] = kills + 1
        try:
            preprocess(options(log, output))
            break
        except Killed:
            kills += 1
    assert kills > 30
    assert contents(output) == expected


def test_a_damaged_part_is_parsed_again(log, tmp_path, monkeypatch):
    import dmoe.data.prepare.stages as module

    preprocess(options(log, tmp_path / "whole"))

    def killed(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(module, "_vocabularies", killed)
        with pytest.raises(Killed):
            preprocess(options(log, tmp_path / "d"))
    parts = sorted((tmp_path / "d").rglob("*.arrow"))
    assert len(parts) > 3
    data = bytearray(parts[0].read_bytes())
    data[len(data) // 2] ^= 1
    parts[0].write_bytes(data)
    parts[1].write_bytes(parts[1].read_bytes()[:100])
    parts[2].write_bytes(b"")
    preprocess(options(log, tmp_path / "d"))
    assert contents(tmp_path / "d") == contents(tmp_path / "whole")


def test_too_many_bad_lines_are_kept_and_a_larger_share_continues(log, tmp_path):
    with pytest.raises(UserError, match=r"log\.tsv:\d+: .* 1,5\d\d.* --max-bad-share 0\.001"):
        preprocess(options(log, tmp_path / "d", max_bad_share=0.001))
    assert list((tmp_path / "d" / "rejects").iterdir())
    parts = {path: path.stat().st_mtime_ns for path in (tmp_path / "d").rglob("*.arrow")}
    assert parts
    preprocess(options(log, tmp_path / "d", max_bad_share=0.02))
    assert not (tmp_path / "d" / ".work").exists()


def test_work_in_progress_of_another_version_is_left_and_told_once(log, tmp_path, capsys):
    (tmp_path / "d" / ".work" / "parts-0123").mkdir(parents=True)
    preprocess(options(log, tmp_path / "d"))
    assert capsys.readouterr().err.count("another version of dmoe") == 1
    assert not (tmp_path / "d" / ".work").exists()
    preprocess(options(log, tmp_path / "e"))
    assert "another version" not in capsys.readouterr().err


def kill_until_done(arguments: list[str], output: Path, kills: int, longest: float) -> None:
    command = [sys.executable, "tools/preprocess.py", *arguments, "--output", str(output), "--max-bad-share", "0.5"]
    command += ["--block-kb", "64", "--rows-per-shard", "2000", "--row-group-rows", "256", "--min-count", "3"]
    chance = random.Random(0)
    for _ in range(kills):
        process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(chance.uniform(0.3, longest))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait()
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def general_log(folder: Path, rows: int) -> list[str]:
    """The command for a log with bags, weights, groups, times and a cross, as JSON lines and some of them no rows."""
    lines = [json.dumps(row) for row in make_rows(rows)]
    for place in range(0, rows, 500):
        lines[place] = lines[place][:-1]
    (folder / "log.jsonl").write_text("\n".join(lines) + "\n")
    cross = {"name": "site_x_hour", "cross": ["site", "hour"]}
    tree = TREE | {"format": "jsonl", "split_key": "user", "categorical": [*TREE["categorical"], cross]}
    (folder / "schema.yaml").write_text(yaml.safe_dump(tree))
    return [
        "log",
        "--schema",
        f"{folder}/schema.yaml",
        "--input",
        f"{folder}/log.jsonl",
        "--split-by",
        "key",
        "--negatives",
        "0.5",
        "--shuffle",
    ]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("kind", "rows", "kills", "longest"), [("criteo", 60_000, 10, 5.0), ("general", 60_000, 10, 5.0), ("avazu", 20_000, 4, 3.0)]
)
def test_sigkill(tmp_path, kind, rows, kills, longest):
    if kind == "criteo":
        synthesize(str(tmp_path / "log.tsv"), rows, seed=5, scale=0.01, bad_share=0.001)
    elif kind == "avazu":
        write_avazu(tmp_path / "log.tsv", rows)
    arguments = general_log(tmp_path, rows) if kind == "general" else [kind, "--input", f"{tmp_path}/log.tsv"]
    kill_until_done(arguments, tmp_path / "a", 0, longest)
    kill_until_done(arguments, tmp_path / "b", kills, longest)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
