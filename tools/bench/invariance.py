"""The whole matrix of plan x number of ranks x layout: the largest relative difference of losses and of final weights to one rank's.

With --resume: every way to save a checkpoint against every way to load it, and the differences to a run that was never stopped.
"""

import argparse
import itertools
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from dmoe.errors import run_command
from dmoe.testing.plans import MIXED, overrides

PLANS = [
    "data_parallel",
    "table_wise",
    "row_wise",
    "column_wise",
    "table_column_wise",
    "table_row_wise",
    "grid_shard",
    *MIXED,
    "planner's choice",
]
LAYOUTS = ["wide", "separate"]
STEPS = 20
BOUND_LOSS, BOUND_WEIGHTS = 1e-5, 2e-4
"""Relative, of 20 steps: what tests/distributed holds the small matrix to. Global sums are taken in another order, no more."""


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="tools/bench/invariance.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--resume", action="store_true", help="the matrix of checkpoints")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4], help="numbers of ranks (default 1 2 4)")
    parser.add_argument(
        "--plans",
        nargs="+",
        choices=PLANS,
        default=PLANS,
        metavar="PLAN",
        help="sharding types, 'mixed', 'mixed on hosts', \"planner's choice\" (default all)",
    )
    arguments = parser.parse_args()

    from dmoe.testing.pool import Pool
    from dmoe.testing.small_data import make_data_set

    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        make_data_set(Path(folder))
        pools = {ranks: Pool(ranks) for ranks in sorted({1, *arguments.ranks})}
        try:
            matrix = resume_matrix if arguments.resume else invariance_matrix
            count, worst_loss, worst_weights = matrix(folder, pools, arguments.ranks, arguments.plans)
        finally:
            for pool in pools.values():
                pool.close()
    sound = worst_loss < BOUND_LOSS and worst_weights < BOUND_WEIGHTS
    print(
        f"\n{count} cases in {time.perf_counter() - began:.0f} s:"
        f" largest relative difference of a loss {worst_loss:.1e} (bound {BOUND_LOSS:.0e}),"
        f" of a weight {worst_weights:.1e} (bound {BOUND_WEIGHTS:.0e}): {'within bounds' if sound else 'OUT OF BOUNDS'}"
    )
    return 0 if sound else 1


def ways(ranks: list[int], plans: list[str]) -> list[tuple[int, str, str]]:
    """Number of ranks, plan and layout of every case; on one rank all types but data-parallel are one kernel over a whole table."""
    return [
        (size, plan, layout)
        for size, plan, layout in itertools.product(ranks, plans, LAYOUTS)
        if size > 1 or plan in ("table_wise", "data_parallel", "mixed")
    ]


def invariance_matrix(folder: str, pools: dict[int, Any], ranks: list[int], plans: list[str]) -> tuple[int, float, float]:
    from dmoe.testing.small_run import largest_difference, loss_difference, train_and_tell

    (expected,) = pools[1].run(train_and_tell, folder, STEPS, *overrides("table_wise", "wide"))
    print(f"{'plan':<20}{'ranks':>6}  {'layout':<10}{'loss':>10}{'tables':>10}{'dense':>10}   types", flush=True)
    worst_loss = worst_weights = 0.0
    cases = ways(ranks, plans)
    for size, plan, layout in cases:
        losses, tables, dense, types = pools[size].run(train_and_tell, folder, STEPS, *overrides(plan, layout))[0]
        loss = loss_difference(losses, expected[0])
        of_tables, of_dense = largest_difference(expected[1], tables), largest_difference(expected[2], dense)
        worst_loss, worst_weights = max(worst_loss, loss), max(worst_weights, of_tables, of_dense)
        print(f"{plan:<20}{size:>6}  {layout:<10}{loss:>10.1e}{of_tables:>10.1e}{of_dense:>10.1e}   {', '.join(types)}", flush=True)
    return len(cases), worst_loss, worst_weights


def resume_matrix(folder: str, pools: dict[int, Any], ranks: list[int], plans: list[str]) -> tuple[int, float, float]:
    import numpy as np

    from dmoe.testing import resume
    from dmoe.testing.small_run import largest_difference, loss_difference

    (straight,) = pools[1].run(resume.undisturbed, folder, *overrides("table_wise", "wide"))
    print(f"{'saved as':<34}{'loaded as':<34}{'loaded':>12}{'loss':>10}{'weights':>10}", flush=True)
    worst_loss = worst_weights = 0.0
    cases = ways(ranks, plans)
    before = [
        pools[size].run(resume.save, folder, f"{folder}/saved-{number}", *overrides(plan, layout))[0]
        for number, (size, plan, layout) in enumerate(cases)
    ]
    for to_size, to_plan, to_layout in cases:
        for number, (size, plan, layout) in enumerate(cases):
            given = folder, f"{folder}/saved-{number}", *overrides(to_plan, to_layout)
            loaded, told = pools[to_size].run(resume.load_again_and_go_on, *given)[0]
            saved = before[number]
            equal = loaded.keys() == saved.keys() and all(np.array_equal(loaded[name], saved[name]) for name in saved)
            loss = loss_difference(told[0], straight[0])
            weights = max(largest_difference(straight[1], told[1]), largest_difference(straight[2], told[2]))
            worst_loss, worst_weights = max(worst_loss, loss), max(worst_weights, weights if equal else float("inf"))
            names = [f"{p} x {s}, {lay}" for s, p, lay in ((size, plan, layout), (to_size, to_plan, to_layout))]
            print(f"{names[0]:<34}{names[1]:<34}{'bit-equal' if equal else 'DIFFERS':>12}{loss:>10.1e}{weights:>10.1e}", flush=True)
    return len(cases) ** 2, worst_loss, worst_weights


if __name__ == "__main__":
    sys.exit(run_command("tools/bench/invariance.py", main))
