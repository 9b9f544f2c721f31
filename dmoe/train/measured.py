"""Starts `dmoe.train.measure` on this machine: one torchrun a node of the plan, as a launcher would."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dmoe.errors import UserError

PROGRAM = "dmoe.train.measure"
LAST_LINES = 30


class MeasuringFailed(Exception):
    """The run broke in a way that is no user's mistake; the message is the end of its output."""


def measure_here(arguments: Sequence[str], nodes: int, ranks_a_node: int, seconds: float, folder: str) -> dict[str, Any]:
    """Measures on so many local processes.

    Args:
        arguments: of `dmoe.train.measure`, without --output.
        seconds: after which the run is ended.
        folder: for its logs and figures.

    Raises:
        UserError: what the run said of a mistake.
        MeasuringFailed: it broke otherwise, or took too long.
    """
    output = str(Path(folder, "measured.json"))
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1] if nodes > 1 else 0
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", str(nodes), "--nproc-per-node", str(ranks_a_node)]
    command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"localhost:{port}", "--rdzv-id", "measure", "--max-restarts", "0"]
    command += ["--local-addr", "localhost", "-m", PROGRAM, *arguments, "--output", output]
    root = str(Path(__file__).resolve().parents[2])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])}
    environment.setdefault("OMP_NUM_THREADS", "1")
    logs, agents = [Path(folder, f"node{node}.log") for node in range(nodes)], []
    try:
        for log in logs:
            with log.open("wb") as file:
                agents.append(subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT))
        until = time.monotonic() + seconds
        codes = [agent.wait(max(until - time.monotonic(), 0.1)) for agent in agents]
    except subprocess.TimeoutExpired:
        raise MeasuringFailed(f"the run had not ended after {seconds:g} s (--timeout)\n{_end(logs)}") from None
    finally:
        for agent in agents:
            if agent.poll() is None:
                agent.terminate()
                agent.wait()
    if any(codes):
        said = [line for line in _lines(logs) if line.startswith(f"{PROGRAM}: ") and "lost another rank" not in line]
        if said:
            raise UserError(f"the measured run: {said[0].removeprefix(f'{PROGRAM}: ')}")
        raise MeasuringFailed(_end(logs))
    measured: dict[str, Any] = json.loads(Path(output).read_text())
    return measured


def _lines(logs: Sequence[Path]) -> list[str]:
    return [line for log in logs for line in log.read_text(errors="replace").splitlines()]


def _end(logs: Sequence[Path]) -> str:
    return "\n".join(_lines(logs)[-LAST_LINES:])
