"""How a step's cost grows along one axis at a time, with the power law that fits it.

    python -m tools.bench.scaling --rows 10000 --axes ranks

All points of an axis are alive together and take turns. The cost is wall-clock; with one thread and one rank the CPU's seconds. `ranks`
has one thread a rank and a global batch of 8,192 at least, and tells how much faster two bare processes multiply than one.
"""

import math
import statistics
import time
from dataclasses import replace
from typing import Any

from tools.bench.case import Case, add_arguments, case_of
from tools.bench.contest import MAIN, Contender, contest
from tools.bench.results import announce, loads, parser, ratio, spread, verdict

AXES: dict[str, tuple[int, ...]] = {
    "batch": (1024, 2048, 4096, 8192),
    "rows": (1_000, 10_000, 100_000, 300_000),
    "features": (6, 13, 26, 39),
    "experts": (1, 2, 3, 6),
    "dim": (4, 8, 16, 32),
    "ranks": (1, 2),
}
RANKS_BATCH, RANKS_TARGET = 8192, 1.7
PRODUCTS, TURNS = 10, 7


def main() -> None:
    options = parser(__doc__)
    add_arguments(options)
    options.set_defaults(threads=1)
    options.add_argument("--axes", default=",".join(AXES))
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--seconds", type=float, default=30.0, help="stop an axis's rounds after so long")
    options.add_argument("--timeout", type=float, default=180.0)
    arguments = options.parse_args()
    base = case_of(arguments)
    announce()
    print(f"around {base.label}", flush=True)
    for axis in arguments.axes.split(","):
        cases = [at(base, axis, size) for size in AXES[axis]]
        found = contest([(MAIN, case, "") for case in cases], arguments.rounds, arguments.seconds, arguments.timeout)
        costs = {}
        for size, one in zip(AXES[axis], found, strict=True):
            taken = seconds_of(one, axis)
            if one.error or not taken:
                print(f"{axis:8} {size:>10,}  FAILED: {one.error}", flush=True)
                continue
            costs[size] = statistics.median(taken)
            print(f"{axis:8} {size:>10,}  {costs[size] * 1e3:9.1f} ms +-{spread(taken):4.0%}  peak {one.peak_mib:7,.0f} MiB", flush=True)
        if len(costs) > 1:
            slope = statistics.linear_regression([math.log(size) for size in costs], [math.log(cost) for cost in costs.values()]).slope
            print(f"{axis:8} cost ~ {axis}^{slope:.2f} (load {loads()})", flush=True)
        if axis == "ranks" and len(costs) > 1:
            gained, cpu = ratio(found[0].rounds, found[1].rounds), ratio(found[1].cpu_rounds, found[0].cpu_rounds)
            told = f"at batch {cases[0].batch:,}, target {RANKS_TARGET}: {verdict(gained >= RANKS_TARGET)}"
            print(f"two ranks of one thread: {gained:.2f} times one, {told}")
            print(f"  at {cpu:.2f} times its CPU seconds; bare products of two processes: {together():.2f} times one's (load {loads()})")


def seconds_of(one: Contender, axis: str) -> list[float]:
    """Of a step in each round: of the CPU where one thread of one rank does all the work, else of the clock."""
    return one.cpu_rounds if axis != "ranks" and one.case.threads == 1 else one.rounds


def at(base: Case, axis: str, size: int) -> Case:
    """The base case with one number changed. Ranks have a thread each, so that two of them have twice the cores."""
    if axis == "ranks":
        base = replace(base, batch=max(base.batch, RANKS_BATCH), threads=1)
    changed: dict[str, Any] = {axis: size}
    return replace(base, **changed)


def together() -> float:
    """Matrix products a second of two processes of one thread at once, over those of one alone: no more can be gained by two ranks."""
    from dmoe.testing.pool import Pool

    pool = Pool(2)
    try:
        gained: float = pool.run(_together)[0]
    finally:
        pool.close()
    return gained


def _together() -> float:
    """Turn by turn, rank 0 alone and both at once."""
    import torch
    import torch.distributed as dist

    left, right = torch.randn(2048, 432), torch.randn(432, 432)
    gains = []
    for _ in range(TURNS):
        taken = []
        for working in (dist.get_rank() == 0, True):
            dist.barrier()
            start = time.perf_counter()
            for _ in range(PRODUCTS if working else 0):
                torch.mm(left, right)
            dist.barrier()
            taken.append(time.perf_counter() - start)
        gains.append(2 * taken[0] / taken[1])
    return statistics.median(gains)


if __name__ == "__main__":
    main()
