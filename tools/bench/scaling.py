"""How a step's cost grows along one axis at a time: measured, with the power law that fits it, and modelled beyond.

    python -m tools.bench.scaling --rows 10000 --output /tmp/bench/scaling

All points of an axis are alive together and take turns. The cost is wall-clock; with one thread and one rank the CPU's seconds. The
model is the planner's (planner/cost/step_time.py): FLOPs over a speed, bytes of rows over a bandwidth, exchange over a link. Its
two speeds are fitted to the base point alone, the link is measured by gloo; every other measured point then checks it, and the sizes that
this machine does not allow are its word. `ranks` has one thread a rank and a global batch of 8,192 at least.
"""

import argparse
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tools.bench.case import Case, add_arguments, case_of
from tools.bench.contest import MAIN, Contender, contest, ratio, spread
from tools.bench.results import announce, figure, loads, save

AXES: dict[str, tuple[int, ...]] = {
    "batch": (1024, 2048, 4096, 8192),
    "rows": (1_000, 10_000, 100_000, 300_000),
    "features": (6, 13, 26, 39),
    "experts": (1, 2, 3, 6),
    "dim": (4, 8, 16, 32),
    "ranks": (1, 2),
}
BEYOND: dict[str, tuple[int, ...]] = {
    "batch": (16_384, 65_536),
    "rows": (1_000_000, 10_000_000),
    "features": (78, 200),
    "experts": (9, 12),
    "dim": (64, 128),
    "ranks": (4, 8, 16, 64),
}
RANKS_BATCH, RANKS_TARGET = 8192, 1.7
NONE = float("nan")


@dataclass(frozen=True)
class Point:
    """A size on an axis: seconds a step, measured (nan beyond) and modelled (nan where the tables fit nowhere)."""

    axis: str
    size: int
    measured: float
    modelled: float
    spread: float
    peak_mib: float
    load: float

    @property
    def error(self) -> float:
        return self.modelled / self.measured - 1

    def __str__(self) -> str:
        there = "beyond this machine" if math.isnan(self.measured) else f"{self.measured * 1e3:9.1f} ms +-{self.spread:4.0%}"
        error = "" if math.isnan(self.error) else f"  error {self.error:+5.0%}"
        peak = "" if math.isnan(self.peak_mib) else f"  peak {self.peak_mib:7,.0f} MiB, load {self.load:4.1f}"
        said = "fits nowhere" if math.isnan(self.modelled) else f"{self.modelled * 1e3:9.1f} ms"
        return f"{self.axis:8} {self.size:>10,}  {there:22}  model {said}{error}{peak}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.set_defaults(threads=1)
    parser.add_argument("--axes", default=",".join(AXES))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=30.0, help="stop an axis's rounds after so long")
    parser.add_argument("--timeout", type=float, default=180.0)
    parser.add_argument("--measure", action="extend", nargs="+", default=[], metavar="AXIS=SIZES", help="other sizes, such as batch=64,128")
    parser.add_argument("--output", default="", help="writes OUTPUT.csv and OUTPUT.png")
    arguments = parser.parse_args()
    axes = AXES | {
        axis: tuple(int(size) for size in sizes.split(",")) for axis, _, sizes in (one.partition("=") for one in arguments.measure)
    }
    base = case_of(arguments)
    announce()
    print(f"around {base.label}", flush=True)
    points = study(base, axes, arguments)
    if arguments.output and points:
        save(points, f"{arguments.output}.csv")
        draw(points, f"{arguments.output}.png", base.label)


def study(base: Case, axes: dict[str, tuple[int, ...]], arguments: argparse.Namespace) -> list[Point]:
    from tools.bench.modelled import fitted, tables_share, two_processes

    (alone,) = contest([(MAIN, replace(base, ranks=1), "")], arguments.rounds, arguments.seconds, arguments.timeout)
    if alone.error:
        raise SystemExit(f"the base point failed: {alone.error}")
    ms, share, (link, together) = cost(alone, "base") * 1e3, tables_share(base), two_processes()
    model = fitted(base, ms * share, ms * (1 - share), link)
    device = model.device
    print(
        f"base {ms:.1f} ms, {share:.1%} of it tables; the model's device: {device.flops / 1e9:.1f} GFLOP/s,"
        f" tables at {device.ddr_bandwidth / 1e9:.1f} GB/s of its formulas, link {device.node_link / 1e9:.2f} GB/s",
        flush=True,
    )
    points = []
    for axis in arguments.axes.split(","):
        cases = [at(base, axis, size) for size in axes[axis]]
        found = contest([(MAIN, case, "") for case in cases], arguments.rounds, arguments.seconds, arguments.timeout)
        here = []
        for case, size, one in zip(cases, axes[axis], found, strict=True):
            if one.error or not one.rounds:
                print(f"{axis:8} {size:>10,}  FAILED: {one.error}", flush=True)
                continue
            apart = spread(one.rounds if axis == "ranks" else one.cpu_rounds)
            here.append(Point(axis, size, cost(one, axis), model.seconds(case), apart, one.peak_mib, statistics.median(one.loads)))
        beyond = [size for size in BEYOND[axis] if size > max(axes[axis])]
        far = [Point(axis, size, NONE, model.seconds(at(base, axis, size)), NONE, NONE, NONE) for size in beyond]
        for point in [*here, *far]:
            print(point, flush=True)
        _conclude(axis, here)
        if axis == "ranks" and len(here) > 1:
            gained = ratio(found[0].rounds, found[1].rounds)
            verdict = "reached" if gained >= RANKS_TARGET else "NOT REACHED"
            print(f"two ranks of one thread: {gained:.2f} times one, at batch {cases[0].batch:,}, target {RANKS_TARGET}: {verdict}")
            cpu = ratio(found[1].cpu_rounds, found[0].cpu_rounds)
            print(f"  at {cpu:.2f} times its CPU seconds; bare products of two processes: {together:.2f} times one's (load {loads()})")
        points += [*here, *far]
    return points


def cost(one: Contender, axis: str) -> float:
    """Seconds a step: of the CPU where one thread of one rank does all the work, else of the clock."""
    return statistics.median(one.cpu_rounds if axis != "ranks" and one.case.threads == 1 else one.rounds)


def at(base: Case, axis: str, size: int) -> Case:
    """The base case with one number changed. Ranks have a thread each, so that two of them have twice the cores."""
    if axis == "ranks":
        base = replace(base, batch=max(base.batch, RANKS_BATCH), threads=1)
    changed: dict[str, Any] = {axis: size}
    return replace(base, **changed)


def _conclude(axis: str, points: Sequence[Point]) -> None:
    errors = [abs(point.error) for point in points if not math.isnan(point.error)]
    if len(points) > 1:
        whole, last = slope(points), slope(points[-2:])
        print(f"{axis:8} cost ~ {axis}^{whole:.2f}, ^{last:.2f} between the last two", end="")
        print(
            f"; the model's error {statistics.median(errors):.0%} in the middle, {max(errors):.0%} at worst" if errors else "", flush=True
        )


def slope(points: Sequence[Point]) -> float:
    """The least-squares slope of log cost over log size: 1 is linear, 0 is for free."""
    return statistics.linear_regression([math.log(p.size) for p in points], [math.log(p.measured) for p in points]).slope


def draw(points: Sequence[Point], path: str, title: str) -> None:
    """A panel an axis: dots for what was measured, a line for the model."""
    axes = list(dict.fromkeys(point.axis for point in points))
    with figure(path, 1, len(axes)) as panels:
        for panel, axis in zip(panels[0], axes, strict=True):
            here = sorted((point for point in points if point.axis == axis), key=lambda point: point.size)
            panel.plot([p.size for p in here], [p.modelled * 1e3 for p in here], color="C1", label="modelled")
            panel.plot([p.size for p in here], [p.measured * 1e3 for p in here], "o", color="C0", label="measured")
            panel.set(xscale="log", yscale="log", xlabel=axis, ylabel="ms a step")
        panels[0][0].set_title(title, fontsize=6)
        panels[0][0].legend()


if __name__ == "__main__":
    main()
