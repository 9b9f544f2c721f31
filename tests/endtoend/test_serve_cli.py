"""`dmoe serve` as a command: several processes, one of which is killed, and the end by SIGTERM."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from dmoe.testing.small_scorer import small_scorer
from tests.ports import free_ports

ROOT = Path(__file__).parents[2]


def ask(port: int, **fields: str) -> list[float]:
    body = json.dumps({"rows": [{"site": "s1"}, {"site": "s7", "price": 3}]} | fields).encode()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/score", body, timeout=1000) as answer:
        return json.loads(answer.read())["probabilities"]


def wait_for(port: int, server: subprocess.Popen[str]) -> list[float]:
    ends = time.monotonic() + 240
    while True:
        try:
            return ask(port)
        except OSError:
            assert server.poll() is None, server.stderr
            assert time.monotonic() < ends
            time.sleep(0.2)


@pytest.mark.slow
def test_workers_share_the_load_one_may_die_and_sigterm_ends_all(tmp_path):
    scorer = small_scorer(str(tmp_path / "made"))
    (port,) = free_ports(1)
    words = [sys.executable, "-m", "dmoe", "serve", "--model", scorer, "--port", str(port), "--workers", "2"]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with open(tmp_path / "said.txt", "w") as said, subprocess.Popen(words, cwd=ROOT, stderr=said, text=True, env=environment) as server:
        try:
            started(tmp_path / "said.txt", 1, f"serves {scorer} at http://127.0.0.1:{port}")
            first = ask(port)  # at once, when that line is told
            assert len(first) == 2
            workers = [json.loads(line)["pid"] for line in started(tmp_path / "said.txt", 2)]
            os.kill(workers[0], signal.SIGKILL)
            assert wait_for(port, server) == first
            assert len({json.loads(line)["pid"] for line in started(tmp_path / "said.txt", 3)}) == 3
            server.send_signal(signal.SIGTERM)
            server.wait(240)
        finally:
            server.kill()
    assert not list(tmp_path.glob("dmoe-serve-*"))
    for pid in workers:
        assert not Path(f"/proc/{pid}").exists()


SPLIT = """
test: t
salt: t
unit: {field: user}
arms: {control: {scorer: made/scorer, share: 0.5}, new: {scorer: made/scorer, share: 0.5}}
control: control
missing_unit: control
exposures: {folder: exposures, seconds: 3600}
"""


@pytest.mark.slow
def test_exposures_of_all_workers_are_on_disk_after_sigterm(tmp_path):
    small_scorer(str(tmp_path / "made"))
    (tmp_path / "split.yaml").write_text(SPLIT)
    (port,) = free_ports(1)
    words = [sys.executable, "-m", "dmoe", "serve", "--split", str(tmp_path / "split.yaml"), "--port", str(port), "--workers", "2"]
    with open(tmp_path / "said.txt", "w") as said, subprocess.Popen(words, cwd=ROOT, stderr=said, text=True) as server:
        try:
            wait_for(port, server)
            started(tmp_path / "said.txt", 2)
            for n in range(60):
                ask(port, user=f"u{n}")
            server.send_signal(signal.SIGTERM)
            server.wait(240)
        finally:
            server.kill()
    files = list((tmp_path / "exposures").iterdir())
    rows = [row for path in files for row in pq.read_table(path).to_pylist()]
    assert sorted((row["unit"], row["row"]) for row in rows) == sorted((f"u{n}", row) for n in range(60) for row in (0, 1))
    assert len({path.name.split("-")[2] for path in files}) == len(files) <= 2


def started(path: Path, count: int, words: str = '"loaded"') -> list[str]:
    """The log's lines with these words, by default those of processes that have loaded the model, once there are so many."""
    ends = time.monotonic() + 240
    while True:
        found = [line for line in path.read_text().splitlines() if words in line]
        if len(found) >= count:
            return found
        assert time.monotonic() < ends, path.read_text()
        time.sleep(0.2)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--model", "none"], "none"),
        (["--model", "README.md"], "--model README.md"),
        (["--model", "README.md", "--port", "99999"], "--port"),
    ],
)
def test_a_mistake_is_one_line(words, named):
    done = subprocess.run([sys.executable, "-m", "dmoe", "serve", *words], cwd=ROOT, capture_output=True, text=True, timeout=1000)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("dmoe serve: ")
    assert named in line
