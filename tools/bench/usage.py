"""What a command costs: wall and CPU seconds and peak memory, of the process and of all that it starts. Linux only: it reads /proc."""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SAMPLE_SECONDS = 0.02


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


def measure(command: Sequence[str], cwd: Path, environment: Mapping[str, str], limit: float) -> Usage:
    """Runs it to its end, or kills its process group after `limit` seconds."""
    peak_kib, late, ended = 0, threading.Event(), threading.Event()

    def watch() -> None:
        nonlocal peak_kib
        while not ended.wait(SAMPLE_SECONDS):
            marks = [_memory(one) for one in _tree(process.pid)]
            peak_kib = max(peak_kib, sum(now for now, _ in marks), *(most for _, most in marks))
            if time.perf_counter() - began > limit and not late.is_set():
                late.set()
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)

    with os.fdopen(os.memfd_create("output"), "r+b") as said:
        began = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=cwd, env=environment, stdout=said, stderr=said, stdin=subprocess.DEVNULL, start_new_session=True
        )
        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            # Not rusage's ru_maxrss: it begins with the memory of the process that forked.
            _, status, usage = os.wait4(process.pid, 0)
            wall = time.perf_counter() - began
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        finally:
            ended.set()
            watcher.join()
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        output = said.read().decode(errors="replace")
    error = ""
    if late.is_set():
        error = f"over the limit of {limit:.0f} s"
    elif process.returncode:
        error = f"exit code {process.returncode}: {(output.strip().splitlines() or ['no output'])[-1]}"
    return Usage(wall, usage.ru_utime + usage.ru_stime, peak_kib / 2**10, output, error)


def _tree(root: int) -> list[int]:
    """A process and its descendants."""
    found = [root]
    for process in found:
        for task in Path(f"/proc/{process}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found.extend(int(child) for child in task.read_text().split())
    return found


def _memory(process: int) -> tuple[int, int]:
    """KiB that are resident, and were at most; 0 of a process that ended."""
    with contextlib.suppress(OSError):
        marks = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
        return tuple(int(marks.get(name, "0").split()[0]) for name in ("VmRSS", "VmHWM"))  # type: ignore[return-value]
    return 0, 0
