"""What the benchmarks print and keep: lines, a CSV, a picture; always with the machine's load."""

import contextlib
import csv
import datetime
import importlib.metadata
import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any


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
    table_parameters: int
    dense_parameters: int
    error: str

    @property
    def place(self) -> tuple[object, ...]:
        """The point and the contender: a later run's row takes the place of an earlier one."""
        return self.model, self.rows, self.batch, self.ranks, self.contender

    def line(self) -> str:
        point = f"{self.model:5} rows {self.rows:>9,} x {self.features:2} batch {self.batch:>6,} ranks {self.ranks}x{self.threads}"
        if self.error:
            return f"{point} {self.contender:8} FAILED: {self.error}"
        speed = f"{self.step_ms:9.1f} ms +-{self.spread:4.0%} {self.samples_per_second:9,.0f}/s cpu {self.cpu_ms:8.1f} ms"
        ratios = f"ratio {self.ratio:5.2f} (cpu {self.cpu_ratio:5.2f})"
        sizes = f"weights {self.table_parameters / 1e6:7.2f} M + {self.dense_parameters:,}"
        return f"{point} {self.contender:8} {speed} peak {self.peak_mib:6,.0f} MiB {ratios} n={self.rounds} load {self.load:4.1f} {sizes}"


def announce() -> None:
    """The line above every table: when, where, under which load."""
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    print(f"{now}; {machine()}; load {loads()}", flush=True)


def machine() -> str:
    """Processor, cores and torch's version."""
    return f"{_processor()}, {os.cpu_count()} cores; torch {importlib.metadata.version('torch')}"


def loads() -> str:
    return "/".join(f"{load:.1f}" for load in os.getloadavg())


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def read(path: str) -> list[Row]:
    """What `save` wrote; nothing where there is no such file."""
    if not Path(path).exists():
        return []
    kinds: dict[str, Any] = {field.name: field.type for field in fields(Row)}
    with Path(path).open(newline="") as file:
        return [Row(**{name: kind(kept[name]) for name, kind in kinds.items()}) for kept in csv.DictReader(file)]


def save(table: Sequence[Any], path: str) -> None:
    """A CSV of dataclasses of one kind, a line each."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with Path(path).open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(table[0])])
        writer.writeheader()
        writer.writerows(asdict(row) for row in table)


def draw(table: Sequence[Row], path: str) -> None:
    """Above, samples a second over the batch, a panel for each model, rows a feature and number of ranks; below, the ratios to dmoe."""
    good = [row for row in table if not row.error]
    names = list(dict.fromkeys(row.contender for row in good))
    panels = sorted({(row.model, row.ranks, row.rows) for row in good})
    if not panels:
        return
    with figure(path, 2, len(panels)) as axes:
        for column, (model, ranks, rows) in enumerate(panels):
            here = [row for row in good if (row.model, row.ranks, row.rows) == (model, ranks, rows)]
            for index, name in enumerate(names):
                mine = sorted((row.batch, row.samples_per_second, row.ratio) for row in here if row.contender == name)
                if mine:
                    batches, speeds, ratios = zip(*mine, strict=True)
                    axes[0][column].plot(batches, speeds, marker="o", color=f"C{index}", label=name)
                    axes[1][column].plot(batches, ratios, marker="o", color=f"C{index}", label=name)
            axes[0][column].set(xscale="log", yscale="log", xlabel="batch", ylabel="samples/s")
            axes[0][column].set_title(f"{model}, {rows:,} rows a feature, {ranks} rank(s)", fontsize=9)
            axes[1][column].set(xscale="log", yscale="log", xlabel="batch", ylabel="time of a step over dmoe's")
            axes[0][column].legend(fontsize=7)


@contextlib.contextmanager
def figure(path: str, rows: int, columns: int) -> Iterator[Any]:
    """Axes [rows][columns] of a picture, which is written when they are drawn."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    Path(path).parent.mkdir(parents=True, exist_ok=True)
    picture, axes = pyplot.subplots(rows, columns, figsize=(3.6 * columns, 3.2 * rows), squeeze=False, layout="constrained")
    yield axes
    picture.savefig(path, dpi=110)
    pyplot.close(picture)
