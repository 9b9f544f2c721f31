"""`dmoe serve` as a command: several processes, one of which is killed, and the end by SIGTERM."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from dmoe.testing.small_scorer import small_scorer

ROOT = Path(__file__).parents[2]


def ask(port: int) -> list[float]:
    body = json.dumps({"rows": [{"site": "s1"}, {"site": "s7", "price": 3}]}).encode()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/score", body, timeout=20) as answer:
        return json.loads(answer.read())["probabilities"]


def wait_for(port: int, server: subprocess.Popen[str]) -> list[float]:
    ends = time.monotonic() + 120
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
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "dmoe", "serve", "--model", scorer, "--port", str(port), "--workers", "2"]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with open(tmp_path / "said.txt", "w") as said, subprocess.Popen(words, cwd=ROOT, stderr=said, text=True, env=environment) as server:
        try:
            first = wait_for(port, server)
            assert len(first) == 2
            workers = [json.loads(line)["pid"] for line in started(tmp_path / "said.txt", 2)]
            os.kill(workers[0], signal.SIGKILL)
            assert wait_for(port, server) == first
            assert len({json.loads(line)["pid"] for line in started(tmp_path / "said.txt", 3)}) == 3
            server.send_signal(signal.SIGTERM)
            server.wait(60)
        finally:
            server.kill()
    assert not list(tmp_path.glob("dmoe-serve-*"))
    for pid in workers:
        assert not Path(f"/proc/{pid}").exists()


def started(path: Path, count: int) -> list[str]:
    """The log's lines of processes that have loaded the model, once there are so many."""
    ends = time.monotonic() + 120
    while True:
        found = [line for line in path.read_text().splitlines() if '"loaded"' in line]
        if len(found) >= count:
            return found
        assert time.monotonic() < ends, path.read_text()
        time.sleep(0.2)


@pytest.mark.parametrize(("words", "named"), [(["--model", "none"], "none"), (["--model", "README.md", "--port", "99999"], "--port")])
def test_a_mistake_is_one_line(words, named):
    done = subprocess.run([sys.executable, "-m", "dmoe", "serve", *words], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("dmoe serve: ")
    assert named in line
