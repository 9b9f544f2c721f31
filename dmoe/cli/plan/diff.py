"""Bytes are exact, optimizer state included: each rank's rectangles less what the same rank holds already."""

import argparse

from dmoe.cli.plan.common import add_json, add_top, check_top
from dmoe.cli.view import show_view


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("a", help="a plan file")
    parser.add_argument("b", help="the plan file that it is compared with")
    add_top(parser, "the tables with the most moved bytes only, this many")
    add_json(parser)
    parser.add_argument("--html", metavar="FILE", help="write one self-contained page to explore, A beside B")


def run(arguments: argparse.Namespace) -> None:

    check_top(arguments)
    from dmoe.sharding.plan.plan_file import read_plan
    from dmoe.sharding.plan.report.diff import as_data, diff_document, difference

    found = difference(read_plan(arguments.a), read_plan(arguments.b), arguments.a, arguments.b)
    document = diff_document(found, arguments.a, arguments.b, arguments.top, bool(arguments.html))
    show_view(document, arguments.html, as_data(found) if arguments.json else None)
