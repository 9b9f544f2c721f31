"""Latency and throughput of exported scorers: what a variant's gain has to be weighed against.

    tools/bench/latency.py scorers/homo_se scorers/dmoe scorers/dmoe_int8

Scorers take turns, so that whatever else the machine does meets all of them; medians are told. Ids are drawn at random, which is harder
on the caches than a log's.
"""

import argparse
import sys

from dmoe.errors import UserError, run_command


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tools/bench/latency.py", description="Measure latency and throughput of exported scorers.")
    parser.add_argument("scorer", nargs="+", help="folders that dmoe export wrote")
    parser.add_argument("--rounds", type=int, default=40, help="calls of each batch size and scorer (40)")
    parser.add_argument("--threads", type=int, default=1, help="of the matrix products (1)")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    if arguments.rounds < 2 or arguments.threads < 1:
        raise UserError("--rounds and --threads: expected at least 2 rounds and 1 thread")
    from dmoe.model.budget.sizes import human
    from dmoe.report.document import in_columns
    from dmoe.report.latency import BATCHES, measure
    from dmoe.serve.scorer import Scorer

    scorers = {path: Scorer(path) for path in arguments.scorer}
    found = measure(scorers, arguments.rounds, arguments.threads)
    rows = [["scorer", "variant", "rows", "size", *(f"{size} row{'s' * (size > 1)}: p50 / p99 ms" for size in BATCHES), "rows/s"]]
    for path, one in found.items():
        about = scorers[path].about
        cells = [f"{one.milliseconds(size):.2f} / {one.milliseconds(size, 0.99):.2f}" for size in BATCHES]
        rows.append([path, about.variant, about.rows, human(one.size), *cells, f"{one.rows_a_second():,.0f}"])
    print(*in_columns(rows[0], rows[1:], rule=True, width=10_000), sep="\n")
    print(f"{arguments.rounds} calls each, taking turns, {arguments.threads} thread(s); rows/s at {BATCHES[-1]:,} rows a call")


if __name__ == "__main__":
    sys.exit(run_command("tools/bench/latency.py", main))
