"""`tools/plan.py make`: plans a config's model for a cluster that need not be there."""

import argparse
from typing import Any

from dmoe.names import show
from tools.plan_commands.common import add_cluster, add_model, model_of


def add(commands: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser("make", help="plan a config's model for a cluster that need not be there")
    add_model(parser)
    add_cluster(parser)
    parser.add_argument("--output", default="plan.json", help="the plan file to write; train with it by --plan FILE")
    return parser


def run(arguments: argparse.Namespace) -> None:
    model = model_of(arguments)
    from dmoe.sharding.plan.plan_file import write_plan
    from dmoe.sharding.planner.cluster import parse_cluster

    cluster = parse_cluster(arguments.cluster)
    plan = model.plan(cluster)
    write_plan(arguments.output, plan)
    predicted = plan["predicted"]
    show(
        f"{arguments.output}: {len(plan['tables'])} tables on {cluster.name}; the critical rank is {predicted['critical_rank']},"
        f" with {predicted['time_ms']:.2f} ms a step predicted for the tables"
    )
