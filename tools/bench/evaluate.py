"""Evaluation beside training: samples a second of both, interleaved, the metrics and their last word included.

python -m tools.bench.evaluate --rows 10000 --features 39 --threads 1

One process. With one thread the figures are of its CPU seconds, which the neighbours' load hardly moves; else of the wall-clock.
"""

import itertools
import statistics
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from tools.bench.case import Case, add_arguments, case_of, forever, make_batches, opened
from tools.bench.results import add_set, announce, clock, in_turns, loads, parser


def main() -> None:
    options = parser(__doc__)
    add_arguments(options)
    options.add_argument("--eval-batch", type=int, default=8192)
    options.add_argument("--eval-rows", type=int, default=65536, help="rows of an evaluation, which ends with its metrics")
    options.add_argument("--steps", type=int, default=8, help="training steps of a round")
    options.add_argument("--rounds", type=int, default=5)
    add_set(options)
    arguments = options.parse_args()
    from dmoe.train.evaluate import evaluate

    case = case_of(arguments)
    announce()
    print(f"{case.label}; {'CPU seconds' if case.threads == 1 else 'wall-clock'}")
    session, batches = opened(case, f"train.eval_batch_size={arguments.eval_batch}", *arguments.set)
    split: Any = Made(replace(case, batch=arguments.eval_batch), arguments.eval_rows)

    def train() -> None:
        # To the end of what there is: an evaluation must find the pipeline empty.
        few = itertools.islice(batches, arguments.steps)
        for _ in range(arguments.steps):
            session.pipeline.progress(few)

    calls = {"training": train, "evaluation": lambda: evaluate(session, split)}
    taken = in_turns(calls, arguments.rounds, clock(case.threads, session.device))
    trained = [arguments.steps * case.batch / seconds for seconds in taken["training"]]
    judged = [arguments.eval_rows / seconds for seconds in taken["evaluation"]]
    ratios = sorted(after / before for before, after in zip(trained, judged, strict=True))
    print(f"training   {statistics.median(trained):10,.0f} samples/s at batch {case.batch:,}")
    print(f"evaluation {statistics.median(judged):10,.0f} samples/s at batch {arguments.eval_batch:,}, {arguments.eval_rows:,} rows")
    middle = statistics.median(ratios)
    print(f"ratio      {middle:10.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}, {len(ratios)} rounds, load {loads()}); wanted: 2.5")


class Made:
    """What `evaluate` asks of a reader, with rows from memory."""

    order = ""

    def __init__(self, case: Case, rows: int) -> None:
        self.batches_of_a_round = -(-rows // case.batch)
        self.made = make_batches(case, 0)

    def batches(self, *_: int) -> Iterator[Any]:
        return itertools.islice(forever(self.made), self.batches_of_a_round)


if __name__ == "__main__":
    main()
