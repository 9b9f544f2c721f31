"""What the benchmarks share: their options, the line above a table, turns, and ratios."""

import argparse
import datetime
import importlib.metadata
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

ROOT = Path(__file__).resolve().parents[2]


def parser(about: str | None, name: str | None = None) -> argparse.ArgumentParser:
    """Of a benchmark whose docstring is its help."""
    return argparse.ArgumentParser(prog=name, description=about, formatter_class=argparse.RawDescriptionHelpFormatter)


def add_set(to: argparse.ArgumentParser) -> None:
    to.add_argument("--set", action="extend", nargs="+", default=[], metavar="KEY=VALUE", help="lays values over the config")


def announce() -> None:
    """The line above every table: when, where, under which load."""
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    print(f"{now}; {machine()}; load {loads()}", flush=True)


def machine() -> str:
    """Processor, cores and torch's version."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores; torch {importlib.metadata.version('torch')}"


def loads() -> str:
    return "/".join(f"{load:.1f}" for load in os.getloadavg())


def in_turns(
    calls: Mapping[str, Callable[[], object]], rounds: int, seconds: Callable[[Callable[[], object]], float]
) -> dict[str, list[float]]:
    """Seconds of each call in each round, so that what else the machine does meets all of them alike; a first round does not count."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            took = seconds(call)
            if turn:
                taken[name].append(took)
    return taken


def clock(threads: int, device: "torch.device") -> Callable[[Callable[[], object]], float]:
    """Seconds of one call: the device's between two events on a GPU, the process's CPU seconds with one thread, else wall-clock."""

    def on_gpu(call: Callable[[], object]) -> float:
        import torch

        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        start.record()
        call()
        end.record()
        torch.cuda.synchronize()
        return float(start.elapsed_time(end)) / 1e3

    def on_cpu(call: Callable[[], object]) -> float:
        now = time.process_time if threads == 1 else time.perf_counter
        began = now()
        call()
        return now() - began

    return on_gpu if device.type == "cuda" else on_cpu


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


def verdict(reached: bool) -> str:
    return "reached" if reached else "NOT REACHED"
