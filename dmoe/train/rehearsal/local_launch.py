"""Starts a program of dmoe on this machine as a launcher would: with one torchrun for each node."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from dmoe.errors import UserError

LAST_LINES = 40


class RunFailed(Exception):
    """The run failed, but not because of a user's mistake. The message is the end of its output."""


def run_here(
    program: str,
    arguments: Sequence[str],
    nodes: int,
    ranks_a_node: int,
    seconds: float,
    folder: str,
    called: str,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Runs a program to its end.

    Args:
        program: a module such as `dmoe.train`.
        seconds: time limit of the run.
        folder: for the logs of the nodes.
        called: how messages name the run, such as `the rehearsed run`.
        environment: added to the environment of this process.

    Raises:
        UserError: the run ended with this message about a user's mistake.
        RunFailed: the run failed for another reason, or took too long.
    """
    port = 0
    if nodes > 1:
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", str(nodes), "--nproc-per-node", str(ranks_a_node)]
    command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"localhost:{port}", "--rdzv-id", "dmoe", "--max-restarts", "0"]
    command += ["--local-addr", "localhost", "-m", program, *arguments]
    root = str(Path(__file__).resolve().parents[3])
    python_path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    whole = {"OMP_NUM_THREADS": "1", **os.environ, **(environment or {}), "PYTHONPATH": python_path}
    logs = [Path(folder, f"node{node}.log") for node in range(nodes)]
    agents = []
    try:
        for log in logs:
            with log.open("wb") as file:
                agents.append(subprocess.Popen(command, env=whole, stdout=file, stderr=subprocess.STDOUT))
        until = time.monotonic() + seconds
        codes = [agent.wait(max(until - time.monotonic(), 0.1)) for agent in agents]
    except subprocess.TimeoutExpired:
        raise RunFailed("\n".join([f"the run had not ended after {seconds:g} s (--timeout)", *_lines(logs)[-LAST_LINES:]])) from None
    finally:
        for agent in agents:
            if agent.poll() is None:
                agent.terminate()
                agent.wait()
    if any(codes):
        # A rank that only lost another one does not know the reason.
        said = [line for line in _lines(logs) if line.startswith(f"{program}: ") and "lost another rank" not in line]
        if said:
            raise UserError(f"{called}: {said[0].removeprefix(f'{program}: ')}")
        raise RunFailed("\n".join(_lines(logs)[-LAST_LINES:]))


def _lines(logs: Sequence[Path]) -> list[str]:
    return [line for log in logs for line in log.read_text(errors="replace").splitlines()]
