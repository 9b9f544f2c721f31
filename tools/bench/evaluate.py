"""Evaluation beside training: samples a second of both, interleaved, the metrics and their last word included.

python -m tools.bench.evaluate --rows 10000 --features 39 --threads 1

One process. With one thread the figures are of its CPU seconds, which the neighbours' load hardly moves; else of the wall-clock.
"""

import argparse
import itertools
import statistics
from collections.abc import Iterator
from dataclasses import replace
from typing import Any


def main() -> None:
    from tools.bench.case import add_arguments, case_of

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--eval-batch", type=int, default=8192)
    parser.add_argument("--eval-rows", type=int, default=65536, help="rows of an evaluation, which ends with its metrics")
    parser.add_argument("--steps", type=int, default=8, help="training steps of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--set", action="extend", nargs="+", default=[], metavar="KEY=VALUE", help="lays values over the case's config")
    arguments = parser.parse_args()
    measure(case_of(arguments), arguments)


def measure(case: Any, arguments: argparse.Namespace) -> None:
    from dmoe.train.evaluate import evaluate
    from tools.bench.case import opened
    from tools.bench.floor import seconds
    from tools.bench.results import announce, loads

    announce()
    print(f"{case.label}; {'CPU seconds' if case.threads == 1 else 'wall-clock'}")
    session, batches = opened(case, f"train.eval_batch_size={arguments.eval_batch}", *arguments.set)
    split: Any = Made(replace(case, batch=arguments.eval_batch), arguments.eval_rows)

    def train() -> None:
        # To the end of what there is: an evaluation must find the pipeline empty.
        few = itertools.islice(batches, arguments.steps)
        for _ in range(arguments.steps):
            session.pipeline.progress(few)

    rounds = []
    for number in range(arguments.rounds + 1):
        trained = arguments.steps * case.batch / seconds(train, case.threads, session.device)
        judged = arguments.eval_rows / seconds(lambda: evaluate(session, split), case.threads, session.device)
        if number:
            rounds.append((trained, judged))
    trains, evals = (statistics.median(values) for values in zip(*rounds, strict=True))
    ratio = statistics.median(judged / trained for trained, judged in rounds)
    spread = sorted(judged / trained for trained, judged in rounds)
    print(f"training   {trains:10,.0f} samples/s at batch {case.batch:,}")
    print(f"evaluation {evals:10,.0f} samples/s at batch {arguments.eval_batch:,}, {arguments.eval_rows:,} rows and their metrics")
    print(f"ratio      {ratio:10.2f} ({spread[0]:.2f} to {spread[-1]:.2f}, {len(rounds)} rounds, load {loads()}); wanted: 2.5")


class Made:
    """What `evaluate` asks of a reader, with rows from memory."""

    order = ""

    def __init__(self, case: Any, rows: int) -> None:
        from tools.bench.case import make_batches

        self.batches_of_a_round = -(-rows // case.batch)
        self.made = make_batches(case, 0)

    def batches(self, *_: int) -> Iterator[Any]:
        from tools.bench.case import forever

        return itertools.islice(forever(self.made), self.batches_of_a_round)


if __name__ == "__main__":
    main()
