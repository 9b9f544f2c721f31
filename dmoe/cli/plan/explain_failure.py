"""Plan a model as `make` does. If no plan fits, plan again with each kind of change (nodes, devices, sharding types, constraints, host
memory, batch size, optimizer, table sets, dim, experts, ids of features), find the smallest change that fits, and rank them. The exit code
is 0 if the model fits, 1 if it does not.
"""

import argparse
import sys

from dmoe.cli.plan.common import add_cluster, add_json, add_model, add_top, check_top, model_of
from dmoe.cli.view import show_view


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    add_cluster(parser)
    parser.add_argument("--on-device", action="store_true", help="tables in host memory count as a failure, since they are slow")
    add_top(parser, "number of the largest tables to name", 5)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    check_top(arguments)
    model = model_of(arguments)
    from dmoe.sharding.planner.advice.failure import explain, failure_document
    from dmoe.sharding.planner.cluster import parse_cluster
    from dmoe.sharding.planner.constraints import rules_for

    cluster = parse_cluster(arguments.cluster)
    # A misspelt name of a table is a mistake, not a lack of memory.
    rules_for(model.tables, model.config, cluster)

    def told(kind: str) -> None:
        print(f"explain-failure: tries {kind}", file=sys.stderr, flush=True)

    found = explain(model, cluster, arguments.on_device, told)
    show_view(failure_document(found, arguments.top), data=found.as_json() if arguments.json else None)
    return 0 if found.step else 1
