"""Evaluate the best checkpoint of a run again, on its own data or on other data.

dmoe evaluate --run runs/first
torchrun --nproc-per-node 2 -m -- dmoe.evaluate --run runs/first    # without `--`, torchrun takes --run as its own option
"""

import argparse

from dmoe.cli.options import add_log_format

RUNS_ON_RANKS = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run", required=True, help="directory of the run")
    parser.add_argument("--data", help="another data set of the same schema (default: the run's own)")
    parser.add_argument("--split", help="the split to evaluate (default: the run's test split)")
    parser.add_argument("--output", default="evaluation.json", help="file for the metrics, in the directory of the run (evaluation.json)")
    add_log_format(parser)


def run(arguments: argparse.Namespace) -> None:
    from dmoe.train.evaluate_run import evaluate_run

    evaluate_run(arguments.run, arguments.data, arguments.split, arguments.output)
