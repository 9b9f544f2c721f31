"""Arguments and output that the commands of dmoe plan share."""

import argparse
import gc
from typing import Any

from dmoe.errors import UserError


def add_model(parser: argparse.ArgumentParser, config: str = "", cardinalities: bool = True) -> None:
    """Adds the arguments that select a model, for `model_of` and `overrides_of`.

    Args:
        config: help of an optional `--config`; empty if it is required.
        cardinalities: whether the sizes of the tables may come from a file.
    """
    parser.add_argument("--config", required=not config, help=config or "the config, a YAML file")
    parser.add_argument("--data", help="the data set, for the sizes of the tables (default: data.path of the config)")
    if cardinalities:
        parser.add_argument("--cardinalities", help="a YAML file of `feature: cardinality` lines, instead of a data set")
    parser.add_argument("--set", action="extend", nargs="+", default=[], metavar="KEY=VALUE", help="override values of the config")


def overrides_of(arguments: argparse.Namespace) -> list[str]:
    """The overrides of the config from `--data` and `--set`."""
    from dmoe.config.config import setting

    return [*([setting("data.path", arguments.data)] if arguments.data else []), *arguments.set]


def model_of(arguments: argparse.Namespace) -> Any:
    """The model that the arguments of `add_model` select, a `dmoe.sharding.planner.planning_model.Described`. Suppresses TorchRec's
    warnings."""
    from dmoe.config.config import load_config
    from dmoe.processes.alive import note

    # A tenth of the time of planning 1,000 tables went into collections that find nothing: its objects live until the process ends.
    gc.set_threshold(100_000, 20, 20)
    config = load_config(arguments.config, overrides_of(arguments))
    note("loads PyTorch and TorchRec")
    from dmoe.sharding.planner.planning_model import describe, load_sizes

    return describe(config, load_sizes(config, arguments.cardinalities))


def add_cluster(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cluster", required=True, help="NODESxRANKS:DEVICE such as 16x8:h100 or 1x2:cpu, or a YAML file for the device")


def add_top(parser: argparse.ArgumentParser, what: str, default: int | None = None) -> None:
    parser.add_argument("--top", type=int, default=default, metavar="N", help=f"{what}{f' ({default})' if default else ''}")


def check_top(arguments: argparse.Namespace) -> None:
    if arguments.top is not None and arguments.top < 1:
        raise UserError(f"--top {arguments.top}: expected at least 1")


def add_json(parser: argparse.ArgumentParser, what: str = "as JSON, in bytes and milliseconds") -> None:
    parser.add_argument("--json", action="store_true", help=what)
