"""tools/preprocess.py --engine ray as a person runs it, on a Ray of this machine: interrupted, a worker killed, two nodes; the same bytes.

About two minutes where the cores are idle: each run starts Ray anew.
"""

import contextlib
import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from torchx.specs import macros, materialize_appdef

from dmoe.launch import components
from tests.log_files import contents, write_logs
from tests.ports import free_ports
from tests.unit.data.log.logs import TREE, make_rows, write_avazu, write_csv
from tests.waiting import wait_for

ROOT = Path(__file__).parents[2]
SMALL = ["--min-count", "3", "--max-bad-share", "0.5", "--rows-per-shard", "500", "--row-group-rows", "128", "--block-kb", "16"]
RAY = ["--engine", "ray", "--workers", "2"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
pytest.importorskip("ray")


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_logs(tmp_path_factory.mktemp("logs"), 4000, scale=0.005)


@pytest.fixture
def environment() -> Iterator[dict[str, str]]:
    """With a folder for temporary files whose path is short enough for Ray's sockets; it has to be empty in the end."""
    folder = tempfile.mkdtemp(dir="/tmp")
    try:
        yield {**os.environ, "TMPDIR": folder, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        wait_for(lambda: not list(Path(folder).iterdir()))
        wait_for(lambda: not [command for command in commands() if folder in command])
    finally:
        shutil.rmtree(folder)


def commands() -> list[str]:
    """Of all processes."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return found


def descendants(process: int) -> dict[int, str]:
    """Process id -> name."""
    names, parents = {}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            name, _, rest = path.read_text().rpartition(")")
            number = int(path.parent.name)
            names[number], parents[number] = name.partition("(")[2], int(rest.split()[1])
    found, more = set(), {process}
    while more:
        found |= more
        more = {number for number, parent in parents.items() if parent in more} - found
    return {number: names[number] for number in found - {process}}


def command(logs: Path, output: Path, *further: str) -> list[str]:
    return [sys.executable, "tools/preprocess.py", "criteo", "--input", str(logs), "--output", str(output), *SMALL, *further]


def start(line: list[str], environment: dict[str, str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(line, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def run(line: list[str], environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(line, cwd=ROOT, env=environment, text=True, capture_output=True, timeout=1000, check=False)


def until(what: str, is_so: Callable[[], object], process: "subprocess.Popen[str]") -> None:
    end = time.monotonic() + 600
    while not is_so():
        assert process.poll() is None, f"it ended before {what}: {process.communicate()[1][-3000:]}"
        assert time.monotonic() < end, what
        time.sleep(0.02)


def kill_a_busy_worker(driver: "subprocess.Popen[str]") -> None:
    """The worker of a task that runs is called ray::_work."""
    busy: list[int] = []
    while not busy:
        assert driver.poll() is None, "it ended before a worker was seen at work"
        busy = [number for number, name in descendants(driver.pid).items() if name.startswith("ray::_work")]
    with contextlib.suppress(ProcessLookupError):
        os.kill(busy[0], signal.SIGKILL)


@pytest.fixture(scope="module")
def local(logs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("local")
    assert run(command(logs, folder, "--workers", "1"), dict(os.environ)).returncode == 0
    return contents(folder)


def test_interrupted_then_continued_with_a_worker_killed_in_every_stage_gives_the_same_bytes(logs, local, environment, tmp_path):
    work = tmp_path / "d" / ".work"
    first = start(command(logs, tmp_path / "d", *RAY), environment)
    until("some parts", lambda: len(list(work.glob("parts-*/*.arrow"))) > 20, first)
    first.send_signal(signal.SIGINT)
    _, said = first.communicate(timeout=1000)
    assert first.returncode == 130
    assert said.splitlines()[-1] == "tools/preprocess.py: interrupted"
    assert "Traceback" not in said
    parts = {path: path.stat().st_mtime_ns for path in work.glob("parts-*/*.arrow")}
    assert len(parts) > 20

    again = start(command(logs, tmp_path / "d", *RAY), environment)
    for what in ("parts-*/00002-*.arrow", "vocabulary-*.counts/*.counts", "shards-*/*.json"):
        until(what, lambda what=what: list(work.glob(what)), again)
        kill_a_busy_worker(again)
    # A part of before the interruption, as long as there are parts.
    kept = next(iter(parts))
    assert not kept.exists() or kept.stat().st_mtime_ns == parts[kept]
    out, said = again.communicate(timeout=1000)
    assert again.returncode == 0, said
    assert "Traceback" not in said
    assert "done" in out
    assert contents(tmp_path / "d") == local


@pytest.mark.parametrize("form", ["bags, weights, groups and times", "avazu"])
def test_a_general_log_has_the_same_bytes_though_a_worker_is_killed(environment, tmp_path, form: str):
    logs = {tmp_path / "log.csv": 20_000, tmp_path / "more.csv": 5_000}
    for seed, (path, rows) in enumerate(logs.items()):
        if form == "avazu":
            write_avazu(path, rows, seed)
        else:
            write_csv(path, make_rows(rows, seed))
    (tmp_path / "schema.yaml").write_text(yaml.safe_dump(TREE))
    inputs = ["--schema", "avazu_x4" if form == "avazu" else f"{tmp_path}/schema.yaml", "--input", *map(str, logs)]
    line = [sys.executable, "tools/preprocess.py", "log", *inputs, *SMALL, "--rows-per-shard", "4000", "--split-by", "time"]
    assert run([*line, "--output", str(tmp_path / "local")], environment).returncode == 0
    by_ray = start([*line, "--output", str(tmp_path / "ray"), *RAY], environment)
    until("some parts", lambda: list((tmp_path / "ray" / ".work").glob("parts-*/*.arrow")), by_ray)
    kill_a_busy_worker(by_ray)
    _, said = by_ray.communicate(timeout=1000)
    assert by_ray.returncode == 0, said
    assert contents(tmp_path / "ray") == contents(tmp_path / "local")


def test_hashed_ids_and_what_they_lose_are_the_same(logs, environment, tmp_path):
    for engine in ([], RAY):
        done = run(command(logs, tmp_path / f"d{len(engine)}", "--ids", "hash", "--hash-size", "3000", *engine), environment)
        assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "d4") == contents(tmp_path / "d0")


def test_a_mistake_that_a_worker_meets_is_the_same_one_line(logs, environment, tmp_path):
    whole = gzip.compress(b"".join(b"%d%s\n" % (row % 2, b"\t1" * 13 + b"\t0badcafe" * 26) for row in range(2000)))
    (tmp_path / "day_0.tsv.gz").write_bytes(whole[: len(whole) // 2] + bytes(len(whole) // 2))
    said = []
    for engine in ([], RAY):
        done = run(command(tmp_path / "day_0.tsv.gz", tmp_path / f"d{len(engine)}", *engine), environment)
        assert done.returncode == 2, done.stderr
        assert "Traceback" not in done.stderr
        said.append(done.stderr.splitlines()[-1])
    assert "cannot be decompressed" in said[0]
    assert said[0] == said[1]


def test_two_nodes_that_torchx_would_start_make_the_same_bytes(logs, local, environment, tmp_path):
    output = tmp_path / "d"
    (port,) = free_ports(1)
    given = ["--input", str(logs), "--output", str(output), "--engine", "ray", "--j", "2x1", "--cpu", "1", "--ray_port", str(port)]
    app = materialize_appdef(components.preprocess, [*given, "--", *SMALL])
    nodes = []
    for node in range(2):
        role = macros.Values(img_root="", app_id="job", replica_id=str(node), rank0_env="FIRST_HOST").apply(app.roles[0])
        nodes.append(start([role.entrypoint, *role.args], {**environment, "FIRST_HOST": "localhost"}))
    said = [node.communicate(timeout=1000) for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], said
    made = contents(output)
    assert made == local
    assert json.loads(made["manifest.json"])["splits"]["train"]["rows"] > 8000
    assert not list(output.glob("*.ray-token")), "the token is gone"
