"""Train a model, and evaluate its best checkpoint on the test split.

dmoe train --config criteo_laptop --set data.path=data/criteo run.dir=runs/first
torchrun --nproc-per-node 2 -m dmoe.train --config criteo_laptop --set data.path=data/criteo run.dir=runs/two
"""

import argparse

from dmoe.cli.options import add_log_format

RUNS_ON_RANKS = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", required=True, help="the config: a YAML file, or the name of a shipped config")
    # One flag may have several values, since torchx refuses a flag that is given twice.
    parser.add_argument("--set", action="extend", nargs="+", default=[], metavar="KEY=VALUE", help="override values of the config")
    parser.add_argument("--plan", help="use this plan file (dmoe plan make); the same as --set sharding.plan=FILE")
    parser.add_argument("--resume", action="store_true", help="continue from the newest sound checkpoint of run.dir, if there is one")
    parser.add_argument(
        "--init-from",
        metavar="RUN",
        help="start from the weights of a checkpoint, or of the best checkpoint of a run; the same as --set train.init_from=RUN",
    )
    parser.add_argument(
        "--trace", metavar="FIRST:STEPS", help="record these steps of every rank in run.dir/trace, for Perfetto or TensorBoard"
    )
    add_log_format(parser)


def overrides_of(arguments: argparse.Namespace) -> list[str]:
    """The overrides of the config that the options ask for."""
    from dmoe.config.config import setting

    named = {"sharding.plan": arguments.plan, "train.init_from": arguments.init_from}
    return [*arguments.set, *(setting(key, text) for key, text in named.items() if text)]


def run(arguments: argparse.Namespace) -> None:
    from dmoe.train.command import train

    train(arguments.config, overrides_of(arguments), arguments.resume, arguments.trace, _page)


def _page(run: str) -> str:
    """A page on a finished run."""
    from dmoe.report.run_page import run_document
    from dmoe.report.runs import load_run

    return run_document([load_run(run)], run).html()
