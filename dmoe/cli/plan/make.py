"""Plan a config's model for a cluster that need not be there."""

import argparse

from dmoe.cli.plan.common import add_cluster, add_model, model_of
from dmoe.names import show


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    add_cluster(parser)
    parser.add_argument("--output", default="plan.json", help="the plan file to write; train with it by --plan FILE")


def run(arguments: argparse.Namespace) -> None:
    model = model_of(arguments)
    from dmoe.sharding.plan.plan_file import write_plan
    from dmoe.sharding.planner.cluster import parse_cluster
    from dmoe.sharding.planner.table_use import with_use

    cluster = parse_cluster(arguments.cluster)
    if not arguments.cardinalities:
        model = with_use(model)
    plan = model.plan(cluster)
    write_plan(arguments.output, plan)
    predicted = plan["predicted"]
    show(
        f"{arguments.output}: {len(plan['tables'])} tables on {cluster.name}; the critical rank is {predicted['critical_rank']},"
        f" with {predicted['time_ms']:.2f} ms a step predicted for the tables"
    )
