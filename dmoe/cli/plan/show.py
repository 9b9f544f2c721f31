"""Everything is predicted anew from the file's shards, so that a plan edited by hand is shown as it is now."""

import argparse

from dmoe.cli.plan.common import add_json, add_top, check_top
from dmoe.cli.view import show_view


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("plan", help="a plan file, such as a run's plan.json")
    parser.add_argument(
        "--why", nargs="?", const="*", default="", metavar="TABLE", help="what was tried for a table (pattern; all without)"
    )
    parser.add_argument(
        "--sort", choices=("size", "time", "name", "sent"), default="size", help="order of the tables, largest first (size)"
    )
    parser.add_argument("--tables", default="*", metavar="PATTERN", help="tables of this name or pattern only, such as 'C1*'")
    parser.add_argument("--ranks", default="", metavar="RANKS", help="these ranks, such as 0-7,12 or all; more than 32 are folded without")
    add_top(parser, "the first tables of that order only, this many")
    add_json(parser, "all ranks' and the chosen tables' figures as JSON, in bytes and milliseconds")
    parser.add_argument("--html", metavar="FILE", help="write a self-contained page to explore: heat-map of ranks x tables, lists, why")


def run(arguments: argparse.Namespace) -> None:

    check_top(arguments)
    from dmoe.sharding.plan.plan_file import read_plan
    from dmoe.sharding.plan.report.plan_stats import figures_of
    from dmoe.sharding.plan.report.show import View, as_data, plan_document

    figures = figures_of(read_plan(arguments.plan), arguments.plan)
    view = View(arguments.sort, arguments.tables, arguments.ranks, arguments.top, arguments.why)
    document = plan_document(figures, view, f"Sharding plan {arguments.plan}", bool(arguments.html))
    show_view(document, arguments.html, as_data(figures, view) if arguments.json else None)
