"""What the benchmarks print and keep: lines, a CSV, a picture; always with the machine's load."""

import csv
import datetime
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """A contender at a point. Ratios are its time over dmoe's: above 1, dmoe is faster. `cpu_ms` is of all ranks and threads."""

    model: str
    rows: int
    features: int
    batch: int
    ranks: int
    threads: int
    contender: str
    step_ms: float
    spread: float
    cpu_ms: float
    samples_per_second: float
    peak_mib: float
    ratio: float
    cpu_ratio: float
    rounds: int
    load: float
    error: str

    def line(self) -> str:
        point = f"{self.model:5} rows {self.rows:>9,} x {self.features:2} batch {self.batch:>6,} ranks {self.ranks}x{self.threads}"
        if self.error:
            return f"{point} {self.contender:8} FAILED: {self.error}"
        speed = f"{self.step_ms:9.1f} ms +-{self.spread:4.0%} {self.samples_per_second:9,.0f}/s cpu {self.cpu_ms:8.1f} ms"
        ratios = f"ratio {self.ratio:5.2f} (cpu {self.cpu_ratio:5.2f})"
        return f"{point} {self.contender:8} {speed} peak {self.peak_mib:6,.0f} MiB {ratios} n={self.rounds} load {self.load:4.1f}"


def announce() -> None:
    """The line above every table: when, where, under which load."""
    import torch

    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    print(f"{now}; {_processor()}, {os.cpu_count()} cores; torch {torch.__version__}; load {loads()}", flush=True)


def loads() -> str:
    return "/".join(f"{load:.1f}" for load in os.getloadavg())


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def save(table: Sequence[Row], output: str) -> None:
    """OUTPUT.csv with every row, OUTPUT.png with samples a second over the batch."""
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    with Path(f"{output}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in table)
    _draw([row for row in table if not row.error], output)


def _draw(table: Sequence[Row], output: str) -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    panels = sorted({(row.model, row.rows, row.ranks) for row in table})
    if not panels:
        return
    figure, axes = pyplot.subplots(1, len(panels), figsize=(4 * len(panels), 3.5), squeeze=False, layout="constrained")
    for axis, panel in zip(axes[0], panels, strict=True):
        here = [row for row in table if (row.model, row.rows, row.ranks) == panel]
        for name in dict.fromkeys(row.contender for row in here):
            points = sorted((row.batch, row.batch / row.cpu_ms * 1e3) for row in here if row.contender == name)
            axis.plot(*zip(*points, strict=True), marker="o", label=name)
        axis.set(xscale="log", yscale="log", xlabel="batch", ylabel="samples per CPU second")
        axis.set_title(f"{panel[0]}, {panel[1]:,} rows, {panel[2]} rank(s)")
        axis.legend()
    figure.savefig(f"{output}.png", dpi=110)
    pyplot.close(figure)
