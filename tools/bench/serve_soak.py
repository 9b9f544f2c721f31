"""dmoe serve under load while its model changes, and while a worker is killed: no request fails, none is answered by two versions at once.

    python -m tools.bench.serve_soak --scorers scorers/monday scorers/tuesday --rows rows.json --seconds 600 --every 10

Every answer names its version, and is compared with what that version's scorer gives for its rows. Once, in the middle, a worker gets
SIGKILL: what its connections were waiting for is lost, and asked again; it has to come back.
"""

import argparse
import http.client
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dmoe.errors import UserError, run_command
from tools.bench.serving import held_mib, point, served, workers

BOUND = 1e-4
ROWS = 5
"""Of a request."""
LOST_SECONDS = 15.0
"""How long after a worker was killed an error of a connection may be its doing."""
BACK_SECONDS = 120.0
"""How long a worker may take to come back."""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tools.bench.serve_soak", description="Load dmoe serve while versions change.")
    parser.add_argument("--scorers", nargs="+", required=True, help="two or more, which take turns")
    parser.add_argument("--rows", required=True, help="a JSON file with a list of raw rows")
    parser.add_argument("--seconds", type=float, default=600.0, help="in all (600)")
    parser.add_argument("--every", type=float, default=10.0, help="seconds between two versions (10)")
    parser.add_argument("--clients", type=int, default=4, help="threads that ask (4)")
    parser.add_argument("--workers", type=int, default=2, help="of the server (2)")
    parser.add_argument("--deadline-ms", type=int, default=2000, help="of a request (2000)")
    parser.add_argument("--engine", choices=("torch", "onnx"), help="of the server")
    return parser.parse_args()


class Soak:
    """What the clients share."""

    def __init__(self, rows: list[dict[str, Any]], expected: dict[str, list[float]], port: int) -> None:
        self.rows, self.expected, self.port = rows, expected, port
        self.ended, self.killed_at = threading.Event(), 0.0
        self.answers: Counter[str] = Counter()
        self.lost = 0
        self.seconds: list[float] = []
        self.wrong: list[str] = []

    def ask_on(self, number: int) -> None:
        """Asks for some rows after another until the end, on one connection as long as it lives."""
        connection, low = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120), number
        while not self.ended.is_set():
            low = (low + 7) % (len(self.rows) - ROWS)
            part, began = self.rows[low : low + ROWS], time.perf_counter()
            try:
                connection.request("POST", "/score", json.dumps({"rows": part}))
                answer = connection.getresponse()
                body = answer.read()
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
                if self.killed_at and time.monotonic() - self.killed_at < LOST_SECONDS:
                    self.lost += 1
                else:
                    self.wrong.append(f"{type(error).__name__}: {error}")
                continue
            if answer.status != 200:
                self.wrong.append(f"{answer.status}: {body[:200]!r}")
                continue
            self.seconds.append(time.perf_counter() - began)
            tree = json.loads(body)
            right = self.expected[tree["version"]][low : low + ROWS]
            if max(abs(a - b) for a, b in zip(tree["probabilities"], right, strict=True)) > BOUND:
                self.wrong.append(f"{tree['version']}: {tree['probabilities']}, expected {right}")
            self.answers[tree["version"]] += 1


def main() -> int:
    arguments = parse_arguments()
    from dmoe.serve.server.versions import load_version

    rows = json.loads(Path(arguments.rows).read_text())
    if len(arguments.scorers) < 2 or len(rows) < 10:
        raise UserError("--scorers, --rows: expected two scorers and ten rows at least")
    versions = {path: load_version(path) for path in map(os.path.abspath, arguments.scorers)}
    expected = {one.name: one.scorer.predict(rows).tolist() for one in versions.values()}
    for one in versions.values():
        one.remove()
    with tempfile.TemporaryDirectory() as folder:
        pointer = Path(folder, "current")
        point(pointer, next(iter(versions)))
        options = ["--model", str(pointer), "--workers", str(arguments.workers), "--deadline-ms", str(arguments.deadline_ms)]
        options += ["--engine", arguments.engine] if arguments.engine else []
        with served(*options) as (port, pid):
            return _load(pid, Soak(rows, expected, port), pointer, list(versions), arguments)


def _load(pid: int, soak: Soak, pointer: Path, folders: Sequence[str], arguments: argparse.Namespace) -> int:
    began, memory, killed = time.monotonic(), [], 0
    clients = [threading.Thread(target=soak.ask_on, args=(number,)) for number in range(arguments.clients)]
    for one in clients:
        one.start()
    turn = 0
    while time.monotonic() - began < arguments.seconds:
        time.sleep(arguments.every)
        turn += 1
        memory.append(held_mib(pid, "Pss:"))
        point(pointer, folders[turn % len(folders)])
        if not killed and arguments.workers > 1 and time.monotonic() - began > arguments.seconds / 2:
            killed = workers(pid)[-1]
            soak.killed_at = time.monotonic()
            os.kill(killed, signal.SIGKILL)
    soak.ended.set()
    for one in clients:
        one.join()
    ends = time.monotonic() + BACK_SECONDS
    while not (came_back := len([one for one in workers(pid) if one != killed]) >= arguments.workers) and time.monotonic() < ends:
        time.sleep(0.2)
    print(f"{sum(soak.answers.values()):,} answers in {arguments.seconds:g} s by {len(soak.answers)} versions, {turn} changes")
    rate, ordered = ROWS * len(soak.seconds) / arguments.seconds, sorted(soak.seconds)
    p50, p99, worst = (1e3 * ordered[int(share * (len(ordered) - 1))] for share in (0.5, 0.99, 1.0))
    print(f"{rate:,.0f} rows/s; p50 {p50:.1f} ms, p99 {p99:.1f} ms, at most {worst:,.0f} ms")
    quarters = [memory[int(share * (len(memory) - 1))] for share in (0, 0.25, 0.5, 0.75, 1)]
    print(f"memory (PSS of all processes), at first and after each quarter: {', '.join(f'{one:,.0f}' for one in quarters)} MiB")
    if killed:
        back = "came back" if came_back else "did not come back"
        print(f"one worker killed: {soak.lost} requests of its connections asked again; it {back}")
    print(f"failed or mixed: {len(soak.wrong)}" + "".join(f"\n  {one}" for one in soak.wrong[:5]))
    return int(bool(soak.wrong) or not came_back or len(soak.answers) < len(soak.expected))


if __name__ == "__main__":
    sys.exit(run_command("tools.bench.serve_soak", main))
