"""How a step's cost grows along one axis at a time, with the power law that fits it.

    python -m tools.bench.scaling --axes batch,rows,features,experts,dim,ranks --threads 1

All points of an axis are alive together and take turns. The cost is CPU time over all ranks and threads, but for `ranks`, whose speed-up is
of the wall-clock. The exponent is the least-squares slope of log cost over log size: 1 is linear, 0 is for free.
"""

import argparse
import math
import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tools.bench.case import Case, add_arguments, case_of
from tools.bench.contest import MAIN, contest, ratio, spread
from tools.bench.results import announce

AXES: dict[str, tuple[int, ...]] = {
    "batch": (1024, 2048, 4096, 8192),
    "rows": (1_000, 10_000, 100_000, 300_000),
    "features": (6, 13, 26, 39),
    "experts": (1, 2, 3, 6),
    "dim": (4, 8, 16, 32),
    "ranks": (1, 2),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--axes", default=",".join(AXES))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=90.0, help="stop an axis's rounds after so long")
    parser.add_argument("--timeout", type=float, default=180.0)
    arguments = parser.parse_args()
    base = case_of(arguments)
    announce()
    print(f"around {base.label}")
    for axis in arguments.axes.split(","):
        cases = [at(base, axis, size) for size in AXES[axis]]
        found = contest([(MAIN, case, "") for case in cases], arguments.rounds, arguments.seconds, arguments.timeout)
        costs = []
        for size, one in zip(AXES[axis], found, strict=True):
            if one.error or not one.rounds:
                print(f"{axis:8} {size:>9,}  FAILED: {one.error}")
                continue
            cpu, wall = statistics.median(one.cpu_rounds), statistics.median(one.rounds)
            costs.append((size, cpu))
            print(
                f"{axis:8} {size:>9,}  cpu {cpu * 1e3:9.1f} ms  wall {wall * 1e3:9.1f} ms  +-{spread(one.cpu_rounds):4.0%}"
                f"  peak {one.peak_mib:7,.0f} MiB  against the first: cpu {ratio(one.cpu_rounds, found[0].cpu_rounds):5.2f},"
                f" wall {ratio(one.rounds, found[0].rounds):5.2f}  load {statistics.median(one.loads):4.1f}",
                flush=True,
            )
        if len(costs) > 1:
            whole, last = slope(costs), slope(costs[-2:])
            print(f"{axis:8} cost ~ {axis}^{whole:.2f}, ^{last:.2f} between the last two", flush=True)


def at(base: Case, axis: str, size: int) -> Case:
    """The base case with one number changed; ranks have the base's threads each, so that two of them have twice the cores."""
    changed: dict[str, Any] = {axis: size}
    return replace(base, **changed)


def slope(points: Sequence[tuple[int, float]]) -> float:
    xs, ys = [math.log(x) for x, _ in points], [math.log(y) for _, y in points]
    return statistics.linear_regression(xs, ys).slope


if __name__ == "__main__":
    main()
