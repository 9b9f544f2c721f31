"""`tools/plan.py make`: plans a config's model for a cluster that need not be there."""

import argparse
from typing import Any


def add(commands: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser("make", help="plan a config's model for a cluster that need not be there")
    add_model(parser)
    parser.add_argument("--cluster", required=True, help="NODESxRANKS:DEVICE such as 16x8:h100 or 1x2:cpu, or a YAML file for the device")
    parser.add_argument("--output", default="plan.json", help="the plan file to write; train with it by --plan FILE")
    return parser


def add_model(parser: argparse.ArgumentParser) -> None:
    """The arguments that say which model is meant: `model_of` reads them."""
    parser.add_argument("--config", required=True, help="the experiment, a YAML file")
    parser.add_argument("--data", help="the data set whose manifest says how large the tables are; the config's data.path where absent")
    parser.add_argument("--cardinalities", help="a YAML file of `feature: cardinality` lines instead of a data set")
    parser.add_argument("--set", action="extend", nargs="+", default=[], metavar="KEY=VALUE", help="lays values over the config")


def model_of(arguments: argparse.Namespace) -> Any:
    """What `add_model`'s arguments mean: a `dmoe.sharding.described.Described`, with TorchRec's chatter turned off."""
    from dmoe.config import load_config
    from dmoe.train.quiet import quiet

    overrides = [*([f"data.path={arguments.data}"] if arguments.data else []), *arguments.set]
    config = load_config(arguments.config, overrides)
    quiet()
    from dmoe.sharding.described import describe, load_sizes

    return describe(config, load_sizes(config, arguments.cardinalities))


def run(arguments: argparse.Namespace) -> None:
    model = model_of(arguments)
    from dmoe.sharding.cluster import parse_cluster
    from dmoe.sharding.kept import write_plan

    cluster = parse_cluster(arguments.cluster)
    plan = model.plan(cluster)
    write_plan(arguments.output, plan)
    predicted = plan["predicted"]
    print(
        f"{arguments.output}: {len(plan['tables'])} tables on {cluster.name}; the critical rank is {predicted['critical_rank']},"
        f" with {predicted['time_ms']:.2f} ms a step predicted for the tables"
    )
