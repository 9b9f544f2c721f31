"""Judges what the file's shards are predicted to cost, not the numbers kept in it. That it fits is always checked. Exit codes: 0 all is
within the limits, 1 some is not, 2 a mistake in the call or a damaged plan.
"""

import argparse

from dmoe.cli.plan.common import add_json, add_model, model_of
from dmoe.cli.view import show_view
from dmoe.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("plan", help="a plan file")
    parser.add_argument("--max-imbalance", type=float, metavar="X", help="most of a rank's predicted time over the mean, such as 1.2")
    parser.add_argument(
        "--min-headroom", metavar="SHARE", help="least free share of a rank's memory, such as 10%%, beside what is reserved"
    )
    parser.add_argument("--max-time-ms", type=float, metavar="MS", help="most of a rank's predicted time a step")
    parser.add_argument("--max-tables-a-rank", type=int, metavar="N", help="most tables with a shard on one rank")
    add_model(parser, "an experiment: is the plan still for its model, batch and constraints?")
    add_json(parser)
    parser.add_argument("--html", metavar="FILE", help="write the same as a self-contained page")


def run(arguments: argparse.Namespace) -> int:
    if not arguments.config and (given := [f"--{key}" for key in ("data", "cardinalities", "set") if getattr(arguments, key)]):
        raise UserError(f"{given[0]}: say which experiment it belongs to, --config X.yaml")
    from dmoe.sharding.plan.check import Limits, as_data, check_document, findings, model_finding, share
    from dmoe.sharding.plan.plan_file import read_plan
    from dmoe.sharding.plan.report.plan_stats import figures_of

    headroom = None if arguments.min_headroom is None else share(arguments.min_headroom)
    limits = Limits(arguments.max_imbalance, headroom, arguments.max_time_ms, arguments.max_tables_a_rank)
    plan = read_plan(arguments.plan)
    found = findings(figures_of(plan, arguments.plan), limits)
    if arguments.config:
        found.append(model_finding(plan, model_of(arguments), arguments.plan))
    show_view(check_document(found, arguments.plan), arguments.html, as_data(found) if arguments.json else None)
    return 0 if all(one.passed for one in found) else 1
