"""Evaluates a run's best checkpoint again: `python -m dmoe.evaluate --run D [--data D2]`.

On several ranks: `torchrun --nproc-per-node 2 -m -- dmoe.evaluate --run D`; without the `--`, torchrun takes --run for its own option.
"""

import argparse
import sys


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m dmoe.evaluate", description=__doc__)
    parser.add_argument("--run", required=True, help="the run's directory")
    parser.add_argument("--data", help="another data set of the same schema; the run's own where absent")
    parser.add_argument("--split", help="the split to evaluate; the run's test split where absent")
    parser.add_argument("--output", default="evaluation.json", help="file in the run's directory that gets the figures")
    arguments = parser.parse_args()

    from dmoe.train.command import evaluate_run

    evaluate_run(arguments.run, arguments.data, arguments.split, arguments.output)


if __name__ == "__main__":
    from dmoe.train.elastic.exit_codes import run_rank

    sys.exit(run_rank("dmoe.evaluate", main))
