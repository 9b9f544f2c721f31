"""A `dmoe serve` of its own: its port, its workers, what they hold, its pointer; and a server of the same stack that computes nothing."""

import contextlib
import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dmoe.errors import UserError

READY_SECONDS = 600.0


@contextlib.contextmanager
def served(*options: str, said: int | Any = subprocess.DEVNULL) -> Iterator[tuple[int, int]]:
    """(port, process id) of a server that is ready, whose log goes to `said`. At the end it answers what it has, and is waited for.

    Raises:
        UserError: it ends, or is not ready in time.
    """
    with _started(lambda port: ["-m", "dmoe", "serve", "--port", str(port), *options], said) as found:
        yield found


@contextlib.contextmanager
def idle_server(rows: int) -> Iterator[tuple[int, int]]:
    """(port, process id) of a server of the same stack, which reads a request and answers as many numbers without computing them."""
    with _started(lambda port: ["-m", "tools.bench.serving", str(port), str(rows)], subprocess.DEVNULL) as found:
        yield found


@contextlib.contextmanager
def _started(words: Callable[[int], list[str]], said: int | Any) -> Iterator[tuple[int, int]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    command = [sys.executable, *words(port)]
    server = subprocess.Popen(command, stderr=said)
    try:
        ends = time.monotonic() + READY_SECONDS
        while not _is_ready(port):
            if server.poll() is not None or time.monotonic() > ends:
                raise UserError(f"{' '.join(command)}: does not serve; run it to see why")
            time.sleep(0.1)
        yield port, server.pid
    finally:
        server.terminate()
        try:
            server.wait(240)
        finally:
            server.kill()


def _is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("GET", "/v2/health/ready")
        return connection.getresponse().status == 200
    return False


def workers(pid: int) -> list[int]:
    """Worker processes of a server, oldest first: those that have its program."""
    found = [int(one) for task in Path(f"/proc/{pid}/task").iterdir() for one in (task / "children").read_text().split()]
    return sorted(one for one in found if b"spawn_main" in _read(one, "cmdline"))


def held_mib(pid: int, kind: str) -> float:
    """What a server and its workers hold together by smaps_rollup: `Pss:` (of pages that several map their share) or `Private_`."""
    lines = [line for one in (pid, *workers(pid)) for line in _read(one, "smaps_rollup").decode().splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith(kind)) / 1024


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def point(pointer: Path, scorer: str) -> None:
    """As docs/serve.md says: a new file takes the pointer's place."""
    beside = pointer.with_suffix(".next")
    beside.write_text(f"{scorer}\n")
    os.replace(beside, pointer)


def _serve_nothing(port: int, rows: int) -> None:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route

    from dmoe.cli.serve import bound
    from dmoe.serve.server.protocol import BoundedProtocol

    async def score(request: Request) -> Response:
        await request.body()
        return JSONResponse({"model": "dmoe", "version": "0-000000000000", "probabilities": [0.4630284] * rows})

    async def ready(request: Request) -> Response:
        return JSONResponse({"ready": True})

    app = Starlette(routes=[Route("/score", score, methods=["POST"]), Route("/v2/health/ready", ready)])
    config = uvicorn.Config(app, http=BoundedProtocol, ws="none", access_log=False, log_level="warning", timeout_keep_alive=30)
    uvicorn.Server(config).run(sockets=[bound("127.0.0.1", port)])


if __name__ == "__main__":
    _serve_nothing(*map(int, sys.argv[1:]))
