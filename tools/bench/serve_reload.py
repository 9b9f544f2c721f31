"""dmoe serve --split under load while both arms are reloaded again and again, and a worker is killed now and then: no request fails but
those that a kill cuts off, no answer mixes versions, memory stays flat, and every answer is in the log of exposures.

    python -m tools.bench.serve_reload --minutes 10 --every 10 --kills 3

It makes two small scorers, which its arms' pointer files name in turn. What a killed worker had not written yet is lost, and counted apart.
Ends with exit code 1 where anything else is wrong.
"""

import argparse
import http.client
import itertools
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dmoe.errors import UserError, run_command
from tools.bench.serving import held_mib, point, served, workers

SPLIT = """
test: reload
salt: reload
unit: {field: user}
arms: {control: {scorer: control, share: 0.5}, new: {scorer: new, share: 0.5}}
control: control
shadow: {scorer: shadow}
exposures: {folder: exposures, rows: 2000, seconds: 5}
"""
ARMS = ("control", "new", "shadow")
ROWS = [{"site": f"s{n % 9}", "user": f"u{n}", "price": n / 3, "tags": ["t1", f"t{n % 5}"][: n % 3]} for n in range(40)]


@dataclass
class Seen:
    """What clients saw. `answers`: (request, row of ROWS) -> (version, score)."""

    answers: dict[tuple[str, int], tuple[str, float]] = field(default_factory=dict)
    requests: int = 0
    failed: list[str] = field(default_factory=list)
    cut: int = 0
    milliseconds: list[float] = field(default_factory=list)


def main() -> int:
    parser = argparse.ArgumentParser(prog="tools.bench.serve_reload", description="Reload an A/B test's scorers under load.")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--every", type=float, default=10.0, help="seconds between two reloads (10)")
    parser.add_argument("--kills", type=int, default=3, help="workers to kill, evenly spread (3)")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--clients", type=int, default=4, help="each sends when it has its answer (4)")
    arguments = parser.parse_args()
    if min(arguments.minutes, arguments.every, arguments.workers, arguments.clients) <= 0 or arguments.kills < 0:
        raise UserError("--minutes, --every, --workers, --clients, --kills: expected more than 0, and no negative number of kills")
    from dmoe.serve.scorer import Scorer
    from dmoe.serve.server.versions import load_version
    from dmoe.testing.small_scorer import small_scorer

    with tempfile.TemporaryDirectory(prefix="dmoe-reload-") as made:
        folder = Path(made)
        scorers = [small_scorer(str(folder / "one")), small_scorer(str(folder / "two"), steps=5, seed=1)]
        expected = {load_version(path).name: Scorer(path).predict(ROWS) for path in scorers}
        (folder / "split.yaml").write_text(SPLIT)
        for arm in ARMS:
            (folder / arm).write_text(f"{scorers[0]}\n")
        return _run(arguments, folder, scorers, expected)


def _run(arguments: argparse.Namespace, folder: Path, scorers: list[str], expected: dict[str, np.ndarray]) -> int:
    options = ["--split", f"{folder}/split.yaml", "--workers", f"{arguments.workers}", "--deadline-ms", "60000"]
    said, stop, seen, memory = folder / "said.txt", threading.Event(), Seen(), []
    with open(said, "w") as log, served(*options, said=log) as (port, pid):
        clients = [threading.Thread(target=_load, args=(port, n, stop, seen, expected)) for n in range(arguments.clients)]
        try:
            for client in clients:
                client.start()
            began, kills = time.monotonic(), 0
            for turn in itertools.count(1):
                time.sleep(arguments.every)
                passed = (time.monotonic() - began) / (60 * arguments.minutes)
                memory.append(held_mib(pid, "Private_"))
                print(f"{passed:5.0%}: {seen.requests:,} requests, {len(seen.failed)} failed, {memory[-1]:,.0f} MiB", flush=True)
                if passed >= 1:
                    break
                for at, arm in enumerate(ARMS):
                    point(folder / arm, scorers[(turn + at) % 2])
                if passed > (kills + 0.5) / max(arguments.kills, 1) and kills < arguments.kills:
                    kills += 1
                    os.kill(random.choice(workers(pid)), signal.SIGKILL)
        finally:
            stop.set()
            for client in clients:
                client.join()
    loaded = sum('"loaded"' in line for line in said.read_text().splitlines())
    return _tell(seen, folder, memory, loaded, kills)


def _load(port: int, number: int, stop: threading.Event, seen: Seen, expected: dict[str, np.ndarray]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    for n in itertools.count():
        if stop.is_set():
            return
        first = n % (len(ROWS) - 5)
        request = f"{number}-{n}"
        body = json.dumps({"rows": ROWS[first : first + 5], "user": f"user-{number}-{n % 50}"})
        began = time.perf_counter()
        try:
            connection.request("POST", "/score", body, {"X-Request-Id": request})
            answer = connection.getresponse()
            status, tree = answer.status, json.loads(answer.read())
        except (OSError, http.client.HTTPException):
            # A killed worker's connection.
            seen.cut += 1
            connection.close()
            continue
        seen.milliseconds.append(1000 * (time.perf_counter() - began))
        seen.requests += 1
        if status != 200:
            seen.failed.append(f"{request}: {status} {tree}")
        elif not np.allclose(tree["probabilities"], expected[tree["version"]][first : first + 5], rtol=1e-4):
            seen.failed.append(f"{request}: not the scores of version {tree['version']}")
        else:
            seen.answers |= {(request, row): (tree["version"], score) for row, score in enumerate(tree["probabilities"])}


def _tell(seen: Seen, folder: Path, memory: list[float], loaded: int, kills: int) -> int:
    import pyarrow.parquet as pq

    columns = ["request_id", "row", "version", "score"]
    logged = [row for path in (folder / "exposures").glob("*.parquet") for row in pq.read_table(path, columns=columns).to_pylist()]
    strange = sum(
        (answer := seen.answers.get((row["request_id"], row["row"]))) is not None
        and (answer[0] != row["version"] or abs(answer[1] - row["score"]) > 1e-6)
        for row in logged
    )
    missing = len(seen.answers.keys() - {(row["request_id"], row["row"]) for row in logged})
    middle, third = np.percentile(seen.milliseconds, [50, 99]), max(1, len(memory) // 3)
    growth = float(np.mean(memory[-third:]) / np.mean(memory[third : 2 * third] or memory) - 1)
    print(f"{seen.requests:,} requests, p50 {middle[0]:.1f} ms, p99 {middle[1]:.1f} ms; {loaded:,} loads of a version, {kills} kills")
    print(f"failed {len(seen.failed)}, cut off by a kill {seen.cut}, exposures of another version or score {strange}")
    print(f"exposures {len(logged):,} of {len(seen.answers):,} answered rows; {missing:,} missing, which kills may cost")
    print(f"memory of its own in the last third beside the second: {growth:+.1%}")
    for line in seen.failed[:5]:
        print(line)
    return int(bool(seen.failed or strange or (missing and not kills) or (seen.cut and not kills) or growth > 0.1))


if __name__ == "__main__":
    sys.exit(run_command("tools.bench.serve_reload", main))
