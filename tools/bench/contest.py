"""Runs contenders in processes of their own, turn by turn, so that what else the machine does meets all of them alike."""

import json
import os
import select
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.bench.case import Case

ROOT = Path(__file__).resolve().parents[2]
MAIN = "dmoe"


@dataclass
class Contender:
    """A builder's processes, one a rank, and what they measured.

    `rounds` holds a median of seconds a step for every round, `cpu_rounds` the same of the CPU's seconds over all ranks and threads: on a
    machine that others load too, those of a single thread are the truer ones.
    """

    name: str
    case: Case
    processes: list[subprocess.Popen[str]]
    rounds: list[float] = field(default_factory=list)
    cpu_rounds: list[float] = field(default_factory=list)
    loads: list[float] = field(default_factory=list)
    peak_mib: float = 0.0
    table_parameters: int = 0
    dense_parameters: int = 0
    error: str = ""

    def ask(self, steps: int, timeout: float) -> tuple[list[float], list[float]]:
        """Runs steps on all ranks; seconds of each step, the slowest rank's, and the CPU's, of all ranks."""
        self._tell(steps)
        answers = [self._answer(process, timeout) for process in self.processes]
        wall = [max(step) for step in zip(*(answer["seconds"] for answer in answers), strict=True)]
        return wall, [sum(step) for step in zip(*(answer["cpu_seconds"] for answer in answers), strict=True)]

    def build(self, timeout: float) -> None:
        """Builds and takes the first step."""
        self._tell(1)
        answers = [self._answer(process, timeout) for process in self.processes]
        self.table_parameters, self.dense_parameters = answers[0]["table_parameters"], answers[0]["dense_parameters"]

    def _tell(self, steps: int) -> None:
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.write(f"{steps}\n")
            process.stdin.flush()

    def _answer(self, process: subprocess.Popen[str], timeout: float) -> dict[str, Any]:
        assert process.stdout is not None
        ready, *_ = select.select([process.stdout], [], [], timeout)
        line = process.stdout.readline() if ready else ""
        if not line:
            reason = f"no answer in {timeout:.0f} s" if not ready else f"ended with exit code {process.wait()}"
            raise RuntimeError(f"{reason}: {_last_line(process)}")
        answer: dict[str, Any] = json.loads(line)
        self.peak_mib = max(self.peak_mib, answer["peak_mib"])
        return answer

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


def _last_line(process: subprocess.Popen[str]) -> str:
    log = Path(process.args[-1].removeprefix("--log="))  # type: ignore[index, union-attr, arg-type]
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return next((line for line in reversed(lines) if line.strip()), "no message")[:300]


def start(name: str, case: Case, python: str = "", memory_gib: float = 0.0) -> Contender:
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(case.threads), "PYTHONWARNINGS": "ignore"}
    processes = []
    for rank in range(case.ranks):
        log = folder / f"{rank}.log"
        command = [
            python or sys.executable,
            "-m",
            "tools.bench.worker",
            name,
            f"--rank={rank}",
            f"--store={folder / 'store'}",
            f"--memory-gib={memory_gib / case.ranks}",
            *case.arguments(),
        ]
        with log.open("w") as errors:
            process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
            )
        process.args = [*command, f"--log={log}"]
        processes.append(process)
    return Contender(name, case, processes)


def contest(
    entries: Sequence[tuple[str, Case, str]], rounds: int, seconds: float, timeout: float, memory_gib: float = 0.0
) -> list[Contender]:
    """All entries (builder, case, interpreter), alive together, stepped in turns for about `seconds` in all: three rounds at least, two
    where those took twice as long.

    A contender that fails keeps its `error` and drops out.
    """
    contenders: list[Contender] = []
    try:
        # They import side by side and build one after the other: a first step needs the most memory.
        contenders += [start(name, case, python, memory_gib) for name, case, python in entries]
        for contender in contenders:
            _guarded(contender, lambda one=contender: one.build(timeout))
        began = time.perf_counter()
        steps: dict[int, int] = {}
        for turn in range(rounds):
            # Every other round backwards, so that nobody always follows the same neighbour.
            for index in list(range(len(contenders)))[:: 1 if turn % 2 == 0 else -1]:
                contender = contenders[index]
                if contender.error:
                    continue
                if index not in steps:
                    # Nothing that a first step does once may count; then about half a second a turn.
                    taken = _guarded(contender, lambda one=contender: one.ask(1, timeout))
                    steps[index] = max(1, min(20, round(0.5 / taken[0][-1]))) if taken else 1
                taken = _guarded(contender, lambda one=contender, n=steps[index]: one.ask(n, timeout))
                if taken:
                    contender.rounds.append(statistics.median(taken[0]))
                    contender.cpu_rounds.append(statistics.median(taken[1]))
                    contender.loads.append(os.getloadavg()[0])
            if time.perf_counter() - began > (seconds if turn >= 2 else 2 * seconds) and turn >= 1:
                break
    finally:
        for contender in contenders:
            contender.close()
    return contenders


def _guarded(contender: Contender, call: Any) -> Any:
    try:
        return call()
    except (RuntimeError, OSError) as error:
        contender.error = str(error)
        contender.close()
        return None


def ratio(of: Sequence[float], to: Sequence[float]) -> float:
    """The median of the rounds' ratios: what both met in a round cancels."""
    pairs = list(zip(of, to, strict=False))
    return statistics.median(a / b for a, b in pairs) if pairs else float("nan")


def spread(values: Sequence[float]) -> float:
    """Half the distance between the quartiles, over the median."""
    if len(values) < 2:
        return float("nan")
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return (high - low) / 2 / middle
