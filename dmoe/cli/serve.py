"""Serves an exported scorer over HTTP: KServe's v2 protocol, and raw rows as JSON or Arrow at /score.

dmoe serve --model scorers/dmoe
curl -d '{"rows": [{"C1": "68fd1e64"}]}' localhost:8080/score
"""

import argparse
import contextlib
import errno
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dmoe.cli.options import add_log_format
from dmoe.errors import UserError, one_line
from dmoe.processes import alive
from dmoe.terminal import tell

if TYPE_CHECKING:
    from dmoe.serve.server.options import ServeOptions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--model", default="", help="a scorer's folder, or a file whose first line names one, which is followed")
    what.add_argument("--split", default="", metavar="FILE", help="an A/B test: its arms, their scorers and shares (docs/serve.md)")
    parser.add_argument("--name", default="dmoe", help="of the model in the protocol (dmoe)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 for all (127.0.0.1)")
    parser.add_argument("--port", type=int, default=8080, help="0 takes a free one (8080)")
    parser.add_argument("--workers", type=int, default=1, help="processes, which share the tables' memory (1)")
    parser.add_argument("--threads", type=int, default=1, help="of matrix products, a process (1)")
    parser.add_argument(
        "--engine", choices=("onnx", "torch"), help="what computes the scores (onnx where the scorer was exported with --format onnx)"
    )
    parser.add_argument("--batch-rows", type=int, default=512, help="rows of a call of the model at most (512)")
    parser.add_argument("--batch-us", type=int, default=200, help="microseconds that a request waits for others (200)")
    parser.add_argument("--queue-rows", type=int, default=65_536, help="rows that may wait; beyond, 503 (65536)")
    parser.add_argument("--deadline-ms", type=int, default=2000, help="of a request; beyond, 504 (2000)")
    parser.add_argument("--max-rows", type=int, default=65_536, help="of a request; beyond, 413 (65536)")
    parser.add_argument("--max-body-mib", type=int, default=16, help="of a request; beyond, 413 (16)")
    parser.add_argument("--max-connections", type=int, default=1000, help="a process; beyond, 503 (1000)")
    parser.add_argument("--token-file", metavar="F", help="its first line is what requests bring as `Authorization: Bearer`")
    add_log_format(parser)


def run(arguments: argparse.Namespace) -> None:
    alive.note("loads PyTorch and the scorer")
    try:
        import uvicorn
        from uvicorn.supervisors import Multiprocess
    except ImportError:
        raise UserError("dmoe serve needs starlette, uvicorn and prometheus-client: install dmoe[serve]") from None
    from dmoe.serve.server.app import create, spare_collector
    from dmoe.serve.server.arms import check
    from dmoe.serve.server.options import ServeOptions
    from dmoe.serve.server.protocol import BoundedProtocol

    class Workers(Multiprocess):
        told = False

        def keep_subprocess_alive(self) -> None:
            # Workers listen when they have loaded the model.
            if not self.told and _accepts(listening):
                self.told = True
                tell_start()
            super().keep_subprocess_alive()

        def terminate_all(self) -> None:
            # Else a connection that the workers do not take any more would wait for this process's end.
            for one in self.sockets:
                one.close()
            super().terminate_all()

    for name in ("workers", "threads", "batch_rows", "queue_rows", "deadline_ms", "max_rows", "max_body_mib", "max_connections"):
        if getattr(arguments, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} {getattr(arguments, name)}: expected at least 1")
    if arguments.batch_us < 0 or not 0 <= arguments.port < 1 << 16:
        raise UserError("--batch-us, --port: expected 0 or more, and a port up to 65535")
    if not arguments.name or "/" in arguments.name:
        raise UserError(f"--name {one_line(arguments.name)}: is part of a path, expected a name without /")
    several = arguments.workers > 1
    # A server of one process raises the signal again when it has ended: the exit code is that of the signal, and the folder is removed.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(bound(arguments.host, arguments.port))
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="dmoe-serve-", ignore_cleanup_errors=True))
        options = ServeOptions(
            arguments.model,
            arguments.name,
            arguments.batch_rows,
            arguments.batch_us,
            arguments.queue_rows,
            arguments.deadline_ms,
            arguments.max_body_mib,
            arguments.max_rows,
            token=_token(arguments.token_file),
            threads=arguments.threads,
            split=arguments.split,
            engine=arguments.engine,
            scratch=scratch,
        )
        if several:
            # Before any worker starts, so that a mistake is one line.
            answering = check(options)
            options.to_environment()
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = os.path.join(scratch, "metrics")
            os.mkdir(os.environ["PROMETHEUS_MULTIPROC_DIR"])
            app: Any = "dmoe.serve.server.app:worker"
        else:
            app = create(options)
            answering = {model.versions.model: model.versions.current.told for model in app.state.server.arms.models}
            spare_collector()
        config = uvicorn.Config(
            app,
            factory=several,
            http=BoundedProtocol,
            ws="none",
            workers=arguments.workers,
            limit_concurrency=arguments.max_connections,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=30,
            # A process that starts on a busy machine is not taken for one that hangs; one that has ended is replaced at once.
            timeout_worker_healthcheck=30,
            access_log=False,
            log_level="warning",
        )

        def tell_start() -> None:
            alive.end()
            for line in started(options, answering, listening):
                tell(line, event="serves")

        if several:
            alive.note(f"starts {arguments.workers} workers")
            Workers(config, sockets=[listening]).run()
        else:
            tell_start()
            uvicorn.Server(config).run(sockets=[listening])


def started(options: "ServeOptions", answering: Mapping[str, str], listening: socket.socket) -> list[str]:
    """What is told at the start: the address, the version and the engine of every model; and how to get a faster engine.

    Args:
        answering: path of a model -> `Version.told`.
    """
    host, port = listening.getsockname()[:2]
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    models = [f"{model}: {told}" for model, told in answering.items()] if options.split else list(answering.values())
    lines = [f"serves {options.model or options.split} at {url} ({'; '.join(models)})"]
    if options.engine is None and any(told.endswith("engine torch") for told in answering.values()):
        lines.append("engine onnx is faster: pip install 'dmoe[onnx]', and dmoe export --format onnx or dmoe versions publish")
    return lines


def bound(host: str, port: int) -> socket.socket:
    """A socket that nobody can connect to yet: a port in use is told before a model is loaded, which may take minutes."""
    # asyncio turns Nagle's algorithm off only for connections whose protocol is named. With it, the body of an answer, which is sent after
    # its head, waits for the client's delayed acknowledgement: 40 ms.
    found = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
    except OSError as error:
        found.close()
        advice = "; --port 0 takes a free one" if error.errno == errno.EADDRINUSE else ""
        raise UserError(f"--host {one_line(host)} --port {port}: {(error.strerror or str(error)).lower()}{advice}") from None
    return found


def _accepts(listening: socket.socket) -> bool:
    """Whether a process accepts connections to a bound socket, as far as its address can be reached from here."""
    with socket.socket(listening.family) as probe:
        probe.settimeout(1)
        return probe.connect_ex(listening.getsockname()) == 0


def _token(path: str | None) -> str:
    if path is None:
        return ""
    from dmoe.storage.paths import read_bounded

    lines = read_bounded(path, 1 << 16, "token file", f"--token-file {path}").decode(errors="replace").splitlines()
    if not lines or not lines[0].strip():
        raise UserError(f"--token-file {path}: its first line is empty")
    return lines[0].strip()
