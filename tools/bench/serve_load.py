"""dmoe serve under load: its saturation by wrk, and latencies at shares of it under an open loop, with and without coalescing.

    python -m tools.bench.serve_load --model scorers/dmoe --log day_0.tsv --output load.json --picture docs/serve_load.svg

wrk is a closed loop: it sends when it has an answer, so that a slow server is asked less. Latencies therefore come from this file's own
open loop: requests are due at random times (exponential gaps), whatever the server does, and a latency counts from that time on. Generator
and server share the machine's cores.
"""

import argparse
import asyncio
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dmoe.errors import UserError, run_command
from tools.bench.serving import served

CONNECTIONS = 64
COALESCED, ALONE = ("--batch-rows", "4096"), ("--batch-rows", "1", "--batch-us", "0")
LUA = 'wrk.method = "POST"\nwrk.headers["Content-Type"] = "application/json"\nlocal f = io.open("{}", "rb")\nwrk.body = f:read("*all")\n'


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tools.bench.serve_load", description="Measure dmoe serve under load.")
    parser.add_argument("--model", required=True, help="a scorer's folder")
    parser.add_argument("--log", required=True, help="Criteo's text format: its lines are the rows")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 100], help="rows of a request (1 100)")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.1, 0.25, 0.5, 0.75, 0.9], help="of the saturation")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each point (5)")
    parser.add_argument("--output", help="JSON file for the figures")
    parser.add_argument("--picture", help="SVG or PNG of latency over load")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    if shutil.which("wrk") is None:
        raise UserError("wrk is not installed; on Debian and Ubuntu: apt-get install wrk")
    from dmoe.report.document import in_columns

    found: list[dict[str, Any]] = []
    for coalesced in (True, False):
        with served("--model", arguments.model, *(COALESCED if coalesced else ALONE)) as (port, pid):
            for rows in arguments.rows:
                bodies, before = requests_of(arguments.log, rows), busy_seconds(pid)
                saturation, answered = wrk(port, bodies[0], arguments.seconds)
                busy_ms = 1e3 * (busy_seconds(pid) - before) / answered
                for share in arguments.shares:
                    latencies, failed = asyncio.run(open_loop(port, bodies, share * saturation, arguments.seconds))
                    found.append(
                        {
                            "coalesced": coalesced,
                            "rows": rows,
                            "saturation": saturation,
                            "busy_ms": busy_ms,
                            "share": share,
                            "requests": len(latencies),
                            "failed": failed,
                            "p50_ms": 1e3 * quantile(latencies, 0.5),
                            "p99_ms": 1e3 * quantile(latencies, 0.99),
                        }
                    )
    table = [["coalescing", "rows", "wrk: requests/s", "CPU ms a request", "share", "p50 ms", "p99 ms", "failed"]]
    for one in found:
        cells = [
            f"{one['saturation']:,.0f}",
            f"{one['busy_ms']:.2f}",
            f"{one['share']:.2f}",
            f"{one['p50_ms']:.2f}",
            f"{one['p99_ms']:.2f}",
            str(one["failed"]),
        ]
        table.append(["on" if one["coalesced"] else "off", str(one["rows"]), *cells])
    print(*in_columns(table[0], table[1:], rule=True, width=10_000), sep="\n")
    if arguments.output:
        Path(arguments.output).write_text(json.dumps(found, indent=1) + "\n")
    if arguments.picture:
        draw(found, arguments.picture)


def requests_of(log: str, rows: int, many: int = 200) -> list[bytes]:
    """Whole HTTP requests of that many rows each."""
    from dmoe.testing.criteo import read_rows

    dicts = read_rows(log, rows * many)
    if len(dicts) < rows:
        raise UserError(f"--log {log}: {len(dicts)} lines, a request has {rows}")
    found = []
    for low in range(0, len(dicts) - rows + 1, rows):
        body = json.dumps({"rows": dicts[low : low + rows]}).encode()
        found.append(b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    return found


def busy_seconds(pid: int) -> float:
    """Of a process's CPU time."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wrk(port: int, request: bytes, seconds: float) -> tuple[float, int]:
    """(requests a second that the server answers at most, how many it answered)."""
    with tempfile.TemporaryDirectory() as folder:
        body, script = Path(folder, "body"), Path(folder, "post.lua")
        body.write_bytes(request.partition(b"\r\n\r\n")[2])
        script.write_text(LUA.format(body))
        command = ["wrk", "-t1", "-c32", f"-d{max(int(seconds), 1)}s", "-s", str(script), f"http://127.0.0.1:{port}/score"]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    (rate,) = re.findall(r"Requests/sec:\s+([\d.]+)", said)
    if "Non-2xx" in said:
        raise UserError(f"wrk: {said}")
    (answered,) = re.findall(r"(\d+) requests in", said)
    if not int(answered):
        raise UserError(f"wrk: the server answered no request in {seconds:g} s; give more --seconds")
    return float(rate), int(answered)


async def open_loop(port: int, requests: Sequence[bytes], rate: float, seconds: float) -> tuple[list[float], int]:
    """Latencies from when requests were due, and how many failed. A request waits for a free connection where all are in use."""
    draw, free, latencies, failed = random.Random(0), asyncio.Queue[Any](), [], 0
    for _ in range(CONNECTIONS):
        free.put_nowait(await asyncio.open_connection("127.0.0.1", port))

    async def ask(request: bytes, due: float) -> None:
        nonlocal failed
        reader, writer = await free.get()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(re.search(rb"content-length: (\d+)", head)[1])  # type: ignore[index]
        await reader.readexactly(length)
        latencies.append(time.perf_counter() - due)
        failed += head.split()[1] != b"200"
        free.put_nowait((reader, writer))

    began, due = time.perf_counter(), 0.0
    tasks: list[asyncio.Task[None]] = []
    while due < seconds:
        due += draw.expovariate(rate)
        if (early := began + due - time.perf_counter()) > 0:
            await asyncio.sleep(early)
        tasks.append(asyncio.create_task(ask(requests[len(tasks) % len(requests)], began + due)))
    await asyncio.gather(*tasks)
    while not free.empty():
        free.get_nowait()[1].close()
    return latencies, failed


def quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def draw(found: Sequence[dict[str, Any]], path: str) -> None:
    """p50 and p99 over the load, a panel a size of requests, both axes logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    # Text stays text: the file is a fifth as large.
    pyplot.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "serve_load", "font.family": "sans-serif"})
    sizes = sorted({one["rows"] for one in found})
    figure, panels = pyplot.subplots(1, len(sizes), figsize=(4.6 * len(sizes), 3.4), squeeze=False)
    for panel, rows in zip(panels[0], sizes, strict=True):
        for coalesced, style in ((True, "-"), (False, "--")):
            some = [one for one in found if one["rows"] == rows and one["coalesced"] == coalesced]
            for name, color in (("p50_ms", "tab:blue"), ("p99_ms", "tab:red")):
                label = f"{name.removesuffix('_ms')}, {'coalesced' if coalesced else 'each alone'}"
                rates = [one["share"] * one["saturation"] for one in some]
                panel.plot(rates, [one[name] for one in some], style, color=color, marker=".", label=label)
        panel.set(title=f"requests of {rows} row{'s' * (rows > 1)}", xlabel="requests a second, open loop", ylabel="milliseconds")
        panel.set(xscale="log", yscale="log")
        for axis in (panel.xaxis, panel.yaxis):
            axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter(ticker.StrMethodFormatter("{x:,g}"))
            axis.set_minor_locator(ticker.NullLocator())
        panel.grid(alpha=0.3)
    panels[0][0].legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None} if path.endswith(".svg") else None)


if __name__ == "__main__":
    sys.exit(run_command("tools.bench.serve_load", main))
