"""From the moment that a file is complete to the moment that a scorer answers with what it taught.

    python -m tools.bench.freshness --output /tmp/fresh --windows 20

Starts `dmoe online` and `dmoe serve`, which follows its pointer, and lets one file after the other appear; asks the server until its answer
names another version. The model and the windows are small: what is measured is the way, not the training.
"""

import json
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

from dmoe.errors import UserError, run_command
from dmoe.testing.growing_log import write_config, write_window
from tools.bench.results import parser
from tools.bench.serving import served

LONGEST_SECONDS = 300.0


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--output", type=Path, required=True, help="an empty folder")
    options.add_argument("--windows", type=int, default=20)
    options.add_argument("--rows", type=int, default=400, help="of a window")
    options.add_argument("--poll", type=float, default=0.2, help="seconds between two looks at the source (0.2)")
    arguments = options.parse_args()
    folder = arguments.output
    (folder / "logs").mkdir(parents=True)
    config = write_config(folder, windows={"poll_seconds": arguments.poll})
    write_window(folder / "logs" / "w000.csv", 0, arguments.rows)
    words = ["--config", config, "--source", f"{folder}/logs", "--run", f"{folder}/run", "--publish", f"{folder}/versions"]
    online = subprocess.Popen([sys.executable, "-m", "dmoe", "online", *words])
    try:
        pointer = folder / "versions" / "current"
        _until(pointer.exists)
        with served("--model", str(pointer)) as (port, _):
            took = []
            for number in range(1, arguments.windows + 1):
                before = version(port)
                write_window(folder / "logs" / f"w{number:03d}.csv", number, arguments.rows)
                began = time.monotonic()
                _until(lambda before=before: version(port) not in ("", before))  # type: ignore[misc]
                took.append(time.monotonic() - began)
    finally:
        online.terminate()
        online.wait()
    lines = [json.loads(line)["seconds"] for line in (folder / "run" / "ledger.jsonl").read_text().splitlines()]
    stages = {name: statistics.median(line[name] for line in lines[1:]) for name in lines[1]}
    print(f"{len(took)} windows of {arguments.rows:,} rows: median {statistics.median(took):.2f} s, longest {max(took):.2f} s")
    print("stages, medians: " + ", ".join(f"{name} {seconds:.2f} s" for name, seconds in stages.items()))


def version(port: int) -> str:
    """Of the server's answer to a row; empty where it does not answer."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}/score", data=b'{"rows": [{"site": "s1"}]}')
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return str(json.loads(answer.read())["version"])
    except OSError:
        return ""


def _until(what: Callable[[], bool]) -> None:
    end = time.monotonic() + LONGEST_SECONDS
    while not what():
        if time.monotonic() > end:
            raise UserError(f"nothing came within {LONGEST_SECONDS:.0f} s")
        time.sleep(0.02)


if __name__ == "__main__":
    sys.exit(run_command("tools.bench.freshness", main))
