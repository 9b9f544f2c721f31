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
from tools.bench.results import ROOT

MAIN = "dmoe"


@dataclass
class Contender:
    """A builder's processes, one a rank, and what they measured.

    `rounds` holds a median of seconds a step for every round, `cpu_rounds` the same of the CPU's seconds over all ranks and threads: on a
    machine that others load too, those of a single thread are the truer ones.
    """

    name: str
    case: Case
    logs: list[Path]
    processes: list[subprocess.Popen[str]]
    rounds: list[float] = field(default_factory=list)
    cpu_rounds: list[float] = field(default_factory=list)
    loads: list[float] = field(default_factory=list)
    peak_mib: float = 0.0
    table_parameters: int = 0
    dense_parameters: int = 0
    error: str = ""

    def ask(self, steps: int, timeout: float) -> list[dict[str, Any]]:
        """Runs steps on all ranks: their answers, none where one failed. The first call builds, and runs one step."""
        if self.error:
            return []
        try:
            for process in self.processes:
                assert process.stdin
                process.stdin.write(f"{steps}\n")
                process.stdin.flush()
            return [self._answer(process, log, timeout) for process, log in zip(self.processes, self.logs, strict=True)]
        except (RuntimeError, OSError) as error:
            self.error = str(error)
            self.close()
            return []

    def seconds(self, steps: int, timeout: float) -> tuple[float, float] | None:
        """Medians of a step: the slowest rank's seconds, and the CPU's of all ranks; None where it failed."""
        if not (answers := self.ask(steps, timeout)):
            return None
        wall, cpu = (zip(*(answer[kind] for answer in answers), strict=True) for kind in ("seconds", "cpu_seconds"))
        return statistics.median(max(step) for step in wall), statistics.median(sum(step) for step in cpu)

    def _answer(self, process: subprocess.Popen[str], log: Path, timeout: float) -> dict[str, Any]:
        assert process.stdout
        ready, *_ = select.select([process.stdout], [], [], timeout)
        line = process.stdout.readline() if ready else ""
        if not line:
            reason = f"no answer in {timeout:.0f} s" if not ready else f"ended with exit code {process.wait()}"
            last = [one for one in log.read_text(errors="replace").splitlines() if one.strip()] or ["no message"]
            raise RuntimeError(f"{reason}: {last[-1][:300]}")
        answer: dict[str, Any] = json.loads(line)
        self.peak_mib = max(self.peak_mib, answer["peak_mib"])
        return answer

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


def start(name: str, case: Case, python: str = "", memory_gib: float = 0.0) -> Contender:
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(case.threads), "PYTHONWARNINGS": "ignore"}
    logs = [folder / f"{rank}.log" for rank in range(case.ranks)]
    processes = []
    for rank, log in enumerate(logs):
        command = [python or sys.executable, "-m", "tools.bench.worker", name, f"--rank={rank}", f"--store={folder / 'store'}"]
        command += [f"--memory-gib={memory_gib / case.ranks}", *case.arguments()]
        with log.open("w") as errors:
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": errors}
            processes.append(subprocess.Popen(command, cwd=ROOT, env=environment, text=True, **pipes))  # type: ignore[call-overload]
    return Contender(name, case, logs, processes)


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
        for one in contenders:
            for answer in one.ask(1, timeout)[:1]:
                one.table_parameters, one.dense_parameters = answer["table_parameters"], answer["dense_parameters"]
        began, steps = time.perf_counter(), dict[int, int]()
        for turn in range(rounds):
            # Every other round backwards, so that nobody always follows the same neighbour.
            for index, one in list(enumerate(contenders))[:: 1 if turn % 2 == 0 else -1]:
                # Nothing that a first step does once may count; then about half a second a turn.
                if index not in steps and (taken := one.seconds(1, timeout)):
                    steps[index] = max(1, min(20, round(0.5 / taken[0])))
                if taken := one.seconds(steps.get(index, 1), timeout):
                    one.rounds.append(taken[0])
                    one.cpu_rounds.append(taken[1])
                    one.loads.append(os.getloadavg()[0])
            if time.perf_counter() - began > (seconds if turn >= 2 else 2 * seconds) and turn >= 1:
                break
    finally:
        for one in contenders:
            one.close()
    return contenders
