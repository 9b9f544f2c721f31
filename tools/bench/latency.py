"""Latency and throughput of exported scorers: what a variant's gain has to be weighed against.

    tools/bench/latency.py scorers/homo_se scorers/dmoe scorers/dmoe_int8

Scorers take turns, so that whatever else the machine does meets all of them; medians are told. Ids are drawn at random, which is harder
on the caches than a log's.
"""

import argparse
import sys
import time

from dmoe.errors import UserError, run_command

BATCHES = (1, 32, 256, 4096)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tools/bench/latency.py", description="Measure latency and throughput of exported scorers.")
    parser.add_argument("scorer", nargs="+", help="folders that tools/export.py wrote")
    parser.add_argument("--rounds", type=int, default=40, help="calls of each batch size and scorer (40)")
    parser.add_argument("--threads", type=int, default=1, help="of the matrix products (1)")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    if arguments.rounds < 2 or arguments.threads < 1:
        raise UserError("--rounds and --threads: expected at least 2 rounds and 1 thread")
    import numpy as np
    import torch

    from dmoe.model.sizes import human
    from dmoe.report.runs import as_text
    from dmoe.serve.scorer import Scorer

    torch.set_num_threads(arguments.threads)
    scorers = {path: Scorer(path) for path in arguments.scorer}
    rng = np.random.default_rng(0)
    seconds: dict[tuple[str, int], list[float]] = {}
    for turn in range(arguments.rounds + 3):
        for size in BATCHES:
            for path, scorer in scorers.items():
                dense = rng.normal(size=(size, len(scorer.about.dense))).astype(np.float32)
                ids = (rng.random((size, len(scorer.cardinality_F))) * scorer.cardinality_F).astype(np.int64)
                began = time.perf_counter()
                scorer.logits(dense, ids)
                if turn >= 3:
                    seconds.setdefault((path, size), []).append(time.perf_counter() - began)
    head = ["scorer", "variant", "rows", "size", *(f"{size} row{'s' * (size > 1)}: p50 / p99 ms" for size in BATCHES), "rows/s"]
    rows = [head]
    for path, scorer in scorers.items():
        size = scorer.rows_RC.nbytes + sum(p.nbytes for p in scorer.mixture.parameters())
        size += scorer.scale_RS.nbytes if scorer.scale_RS is not None else 0
        cells = [f"{np.median(s) * 1e3:.2f} / {np.quantile(s, 0.99) * 1e3:.2f}" for s in (seconds[path, batch] for batch in BATCHES)]
        rows.append(
            [
                path,
                scorer.about.variant,
                scorer.about.rows,
                human(size),
                *cells,
                f"{BATCHES[-1] / np.median(seconds[path, BATCHES[-1]]):,.0f}",
            ]
        )
    print(as_text(rows))
    print(f"{arguments.rounds} calls each, taking turns, {arguments.threads} thread(s); rows/s at {BATCHES[-1]:,} rows a call")


if __name__ == "__main__":
    sys.exit(run_command("tools/bench/latency.py", main))
