"""What a command costs: wall and CPU seconds and peak memory, of the process and of all that it starts. Linux only: it reads /proc."""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

SAMPLE_SECONDS = 0.02
TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Usage:
    """`peak_mib`: resident memory, the higher of one process's high-water mark and the sum over the tree at one moment, where pages that
    processes share count once in each; sampled, so a process of a few hundredths of a second may show less. `error` is empty where
    the command succeeded."""

    wall: float
    cpu: float
    peak_mib: float
    output: str
    error: str = ""


@dataclass
class _Tree:
    """Samples of a process and its descendants, those included that nobody waits for, as Ray's workers."""

    root: int
    ended: threading.Event = field(default_factory=threading.Event)
    cpu: dict[int, float] = field(default_factory=dict)
    peak: int = 0

    def watch(self) -> None:
        while True:
            resident = 0
            for process in self._processes():
                # A process can end between two reads.
                with contextlib.suppress(OSError, IndexError, ValueError):
                    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
                    self.cpu[process] = (int(fields[11]) + int(fields[12])) / TICK
                    resident += int(fields[21]) * PAGE
                    self.peak = max(self.peak, _high_water(process))
            self.peak = max(self.peak, resident)
            if self.ended.wait(SAMPLE_SECONDS):
                return

    def _processes(self) -> list[int]:
        found = [self.root]
        for process in found:
            for task in Path(f"/proc/{process}/task").glob("*/children"):
                with contextlib.suppress(OSError):
                    found.extend(int(child) for child in task.read_text().split())
        return found


def _high_water(process: int) -> int:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM")), 0)


def measure(command: Sequence[str], cwd: Path, environment: Mapping[str, str], limit: float) -> Usage:
    """Runs it to its end, or kills its process group after `limit` seconds."""
    with os.fdopen(os.memfd_create("output"), "r+b") as said:
        began = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=cwd, env=environment, stdout=said, stderr=said, stdin=subprocess.DEVNULL, start_new_session=True
        )
        tree = _Tree(process.pid)
        late = threading.Event()

        def stop() -> None:
            late.set()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

        watcher, timer = threading.Thread(target=tree.watch), threading.Timer(limit, stop)
        watcher.start()
        timer.start()
        try:
            # Not rusage's ru_maxrss: it begins with the memory of the process that forked.
            _, status, usage = os.wait4(process.pid, 0)
            wall = time.perf_counter() - began
        except BaseException:
            stop()
            raise
        finally:
            timer.cancel()
            tree.ended.set()
            watcher.join()
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        output = said.read().decode(errors="replace")
    cpu = max(usage.ru_utime + usage.ru_stime, sum(tree.cpu.values()))
    error = ""
    if late.is_set():
        error = f"over the limit of {limit:.0f} s"
    elif process.returncode:
        error = f"exit code {process.returncode}: {(output.strip().splitlines() or ['no output'])[-1]}"
    return Usage(wall, cpu, tree.peak / 2**20, output, error)
