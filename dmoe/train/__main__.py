"""Trains: `torchrun -m dmoe.train --config configs/X.yaml --set data.path=D --set run.dir=R`, or without torchrun on one process."""

import argparse
import sys


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m dmoe.train", description=__doc__)
    parser.add_argument("--config", required=True, help="the experiment, a YAML file")
    # Several values for one flag as well as several flags: torchx refuses a flag that comes twice.
    parser.add_argument("--set", action="extend", nargs="+", default=[], metavar="KEY=VALUE", help="lays values over the config")
    parser.add_argument("--plan", help="a kept plan (tools/plan.py make) to use exactly; the same as --set sharding.plan=FILE")
    parser.add_argument("--resume", action="store_true", help="go on from run.dir's newest sound checkpoint, if it has one")
    parser.add_argument(
        "--init-from", metavar="RUN", help="start from the weights of this run's best checkpoint, or of a checkpoint: train.init_from"
    )
    parser.add_argument(
        "--trace", metavar="FIRST:STEPS", help="record these steps of every rank in run.dir/trace, for Perfetto or TensorBoard"
    )
    return parser


def main() -> None:
    arguments = make_parser().parse_args()

    from dmoe.train.command import train

    plan = [f"sharding.plan={arguments.plan}"] if arguments.plan else []
    init = [f"train.init_from={arguments.init_from}"] if arguments.init_from else []
    train(arguments.config, arguments.set + plan + init, arguments.resume, arguments.trace)


if __name__ == "__main__":
    from dmoe.train.elastic.exit_codes import run_rank

    sys.exit(run_rank("dmoe.train", main))
