"""Plan the model of a config for a cluster, without the cluster."""

import argparse

from dmoe.cli.plan.common import add_cluster, add_model, model_of
from dmoe.errors import UserError
from dmoe.names import show


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    add_cluster(parser)
    parser.add_argument("--output", default="plan.json", help="the plan file to write, for dmoe train --plan FILE (plan.json)")
    parser.add_argument(
        "--gap",
        type=float,
        default=0.01,
        help="stop when the time of the slowest rank is within this share of its lower bound (0.01); Ctrl-C writes the best plan so far",
    )


def run(arguments: argparse.Namespace) -> None:
    if not 0 <= arguments.gap < 1:
        raise UserError(f"--gap {arguments.gap}: expected a share from 0 to below 1, such as 0.01")
    model = model_of(arguments)
    from dmoe.sharding.plan.plan_file import write_plan
    from dmoe.sharding.plan.report.show_words import over_bound
    from dmoe.sharding.planner.cluster import parse_cluster
    from dmoe.sharding.planner.cost.table_use import in_short, with_use

    cluster = parse_cluster(arguments.cluster)
    if not arguments.cardinalities:
        model = with_use(model)
    plan = model.plan(cluster, gap=arguments.gap, keep_best=True)
    write_plan(arguments.output, plan)
    predicted = plan["predicted"]
    over = over_bound(predicted["bound_ms"], predicted["time_ms"])
    show(
        f"{arguments.output}: {len(plan['tables'])} tables on {cluster.name}; the critical rank is {predicted['critical_rank']},"
        f" with {predicted['time_ms']:.2f} ms a step predicted for the tables{f', {over}' * bool(over)}"
    )
    if model.uses:
        show(in_short(model.uses))
    if not predicted["complete"]:
        show("the search was interrupted; this is the best plan that it has found")
