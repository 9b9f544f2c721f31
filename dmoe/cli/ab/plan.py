"""Compute how many rows, units and days an A/B test needs, if it is read once at its end, and if it is read every day.

dmoe ab plan --baseline 0.05 --relative 0.02 --traffic 1000000 --rows-a-unit 6 --correlation 0.02 --output plan.json
"""

import argparse

from dmoe.cli.options import add_options, given
from dmoe.names import show


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from dmoe.report.ab.plan_options import PlanOptions

    add_options(parser, PlanOptions)
    parser.add_argument("--output", metavar="FILE", help="write the plan as JSON, for `dmoe ab read --plan`")


def run(arguments: argparse.Namespace) -> None:
    from dmoe.cli.view import show_view, write_page
    from dmoe.report.ab.plan import as_json, make_plan, plan_document
    from dmoe.report.ab.plan_options import PlanOptions

    plan = make_plan(PlanOptions(**given(arguments, PlanOptions)))
    show_view(plan_document(plan))
    if arguments.output:
        write_page(arguments.output, as_json(plan))
        show(f"plan: {arguments.output}")
