"""dmoe serve under load: its saturation by wrk, and latencies at shares of it under an open loop, with and without coalescing.

    python -m tools.bench.serve_load --model scorers/dmoe --log day_0.tsv --output load.json --picture docs/serve_load.svg

wrk is a closed loop: it sends when it has an answer, so that a slow server is asked less. Latencies therefore come from this file's own
open loop: requests are due at random times (exponential gaps), whatever the server does, and a latency counts from that time on. Generator
and server share the machine's cores. The floor is what the generator measures at half the saturation of a server of the same stack that
computes nothing. Figures are medians over rounds.
"""

import argparse
import asyncio
import gc
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from dmoe.errors import UserError, run_command
from tools.bench.serving import idle_server, served

CONNECTIONS = 64
COALESCED, ALONE, FLOOR = "coalesced", "each alone", "computes nothing"
SERVERS: dict[str, tuple[str, ...]] = {COALESCED: (), ALONE: ("--batch-rows", "1", "--batch-us", "0")}
LUA = 'wrk.method = "POST"\nwrk.headers["Content-Type"] = "application/json"\nlocal f = io.open("{}", "rb")\nwrk.body = f:read("*all")\n'


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tools.bench.serve_load", description="Measure dmoe serve under load.")
    parser.add_argument("--model", required=True, help="a scorer's folder")
    parser.add_argument("--log", required=True, help="Criteo's text format: its lines are the rows")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 100], help="rows of a request (1 100)")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.1, 0.25, 0.5, 0.75, 0.9], help="of the saturation")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each point (8)")
    parser.add_argument("--rounds", type=int, default=3, help="of all points; the figures are medians (3)")
    parser.add_argument("--output", help="JSON file for the figures")
    parser.add_argument("--picture", help="SVG or PNG of latency over load")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    if shutil.which("wrk") is None:
        raise UserError("wrk is not installed; on Debian and Ubuntu: apt-get install wrk")
    from dmoe.report.document import in_columns

    found = medians([one for _ in range(arguments.rounds) for one in measured(arguments)])
    table = [["server", "rows", "wrk: requests/s", "CPU ms a request", "share", "requests/s", "p50 ms", "p99 ms", "failed"]]
    for one in found:
        numbers = [f"{one['saturation']:,.0f}", f"{one['busy_ms']:.2f}", f"{one['share']:.2f}", f"{one['rate']:,.0f}"]
        numbers += [f"{one['p50_ms']:.2f}", f"{one['p99_ms']:.2f}", str(one["failed"])]
        table.append([one["server"], str(one["rows"]), *numbers])
    print(*in_columns(table[0], table[1:], rule=True, width=10_000), sep="\n")
    if arguments.output:
        Path(arguments.output).write_text(json.dumps(found, indent=1) + "\n")
    if arguments.picture:
        draw(found, arguments.picture)


def measured(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """The figures of one round, a dict a point: requests a second, CPU time a request, and latencies."""
    found: list[dict[str, Any]] = []
    halves: dict[int, float] = {}
    for server, options in SERVERS.items():
        with served("--model", arguments.model, *options) as (port, pid):
            for rows in arguments.rows:
                bodies, before = requests_of(arguments.log, rows), busy_seconds(pid)
                saturation, answered = wrk(port, bodies[0], arguments.seconds)
                halves.setdefault(rows, saturation / 2)
                of_all = {
                    "server": server,
                    "rows": rows,
                    "saturation": saturation,
                    "busy_ms": 1e3 * (busy_seconds(pid) - before) / answered,
                }
                for share in arguments.shares:
                    found.append(of_all | {"share": share} | latencies(port, bodies, share * saturation, arguments.seconds))
    for rows, rate in halves.items():
        with idle_server(rows) as (port, pid):
            before = busy_seconds(pid)
            point = latencies(port, requests_of(arguments.log, rows), rate, arguments.seconds)
            busy_ms = 1e3 * (busy_seconds(pid) - before) / point["requests"]
            found.append({"server": FLOOR, "rows": rows, "saturation": 2 * rate, "busy_ms": busy_ms, "share": 0.5} | point)
    return found


def latencies(port: int, bodies: Sequence[bytes], rate: float, seconds: float) -> dict[str, float]:
    """The figures of a point."""
    found, failed = asyncio.run(open_loop(port, bodies, rate, seconds))
    told = {"p50_ms": 1e3 * quantile(found, 0.5), "p99_ms": 1e3 * quantile(found, 0.99)}
    return {"rate": rate, "requests": len(found), "failed": failed, **told}


def medians(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The points of several rounds as one; `failed` is that of all rounds together."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for one in found:
        groups.setdefault((one["server"], one["rows"], one["share"]), []).append(one)
    names = ("saturation", "busy_ms", "rate", "requests", "p50_ms", "p99_ms")
    return [
        {**some[0], **{name: median(one[name] for one in some) for name in names}, "failed": sum(one["failed"] for one in some)}
        for some in groups.values()
    ]


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


class Connection(asyncio.Protocol):
    """A connection that is kept; `answered` is called with it and whether the status is 200, and at its end."""

    def __init__(self, answered: Callable[["Connection", bool], None]) -> None:
        self.answered = answered
        self.due, self.got, self.size = 0.0, b"", 0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if not self.due:
            # The server ends a connection that was not used.
            return
        self.got += data
        if not self.size and (head := self.got.find(b"\r\n\r\n")) >= 0:
            self.size = head + 4 + int(re.search(rb"content-length: (\d+)", self.got)[1])  # type: ignore[index]
        if self.size and len(self.got) >= self.size:
            status, self.got, self.size = self.got.split(maxsplit=2)[1], b"", 0
            self.answered(self, status == b"200")

    def connection_lost(self, error: Exception | None) -> None:
        self.answered(self, False)

    def send(self, request: bytes, due: float) -> None:
        self.due = due
        self.transport.write(request)


async def open_loop(port: int, requests: Sequence[bytes], rate: float, seconds: float) -> tuple[list[float], int]:
    """Latencies from when requests were due, and how many failed. A request waits for a free connection where all are in use.

    The connection used last is used first, as pools of clients do: the server's answers are then acknowledged late (by the next request).
    """
    draw, loop = random.Random(0), asyncio.get_running_loop()
    found: list[float] = []
    waiting: deque[tuple[bytes, float]] = deque()
    failed, asked, ended = 0, 0, asyncio.Event()

    def answered(connection: Connection, sound: bool) -> None:
        nonlocal failed
        if connection.due:
            found.append(time.perf_counter() - connection.due)
            failed += not sound
            connection.due = 0.0
        if connection.transport.is_closing():
            if connection in free:
                free.remove(connection)
        elif waiting:
            connection.send(*waiting.popleft())
        else:
            free.append(connection)
        if asked and len(found) == asked:
            ended.set()

    free = [(await loop.create_connection(lambda: Connection(answered), "127.0.0.1", port))[1] for _ in range(CONNECTIONS)]
    # The generator's own pauses would count as the server's.
    gc.collect()
    gc.disable()
    began, due, sent = time.perf_counter(), draw.expovariate(rate), 0
    while due < seconds:
        await asyncio.sleep(max(began + due - time.perf_counter(), 0))
        request = requests[sent % len(requests)]
        sent += 1
        if free:
            free.pop().send(request, began + due)
        else:
            waiting.append((request, began + due))
        due += draw.expovariate(rate)
    asked = sent
    if len(found) < asked:
        async with asyncio.timeout(60):
            await ended.wait()
    gc.enable()
    for connection in free:
        connection.transport.close()
    return found, failed


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
        for server, style in ((COALESCED, "-"), (ALONE, "--"), (FLOOR, "")):
            some = [one for one in found if one["rows"] == rows and one["server"] == server]
            for name, color in (("p50_ms", "tab:blue"), ("p99_ms", "tab:red")):
                label = f"{name.removesuffix('_ms')}, {server}"
                marker = "x" if server == FLOOR else "."
                panel.plot([one["rate"] for one in some], [one[name] for one in some], style, color=color, marker=marker, label=label)
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
