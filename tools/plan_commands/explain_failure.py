"""`tools/plan.py explain-failure`: where nothing fits, the smallest changes that would make it fit, each with its cost."""

import argparse
import sys
from typing import Any

from tools.plan_commands.make import add_model, model_of


def add(commands: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        "explain-failure",
        help="where nothing fits: the smallest changes that would make it fit, each with its cost, ranked",
        description="Plans as `make` does. Where that fails, it plans again with each kind of change (nodes, devices, sharding types,"
        " constraints, host memory, batch, optimiser, table sets, dim, experts, ids a feature), finds the smallest amount that fits, and"
        " ranks them. Exit code 0 where the model fits, 1 where it does not.",
    )
    add_model(parser)
    parser.add_argument("--cluster", required=True, help="NODESxRANKS:DEVICE such as 1x8:a100-40, or a YAML file for the device")
    parser.add_argument("--on-device", action="store_true", help="count tables in the host's memory as a failure too: they are slow")
    parser.add_argument("--top", type=int, default=5, help="how many of the largest tables to name (default 5)")
    parser.add_argument("--json", action="store_true", help="print all of it as JSON")
    return parser


def run(arguments: argparse.Namespace) -> int:
    model = model_of(arguments)
    import json

    from dmoe.sharding.cluster import parse_cluster
    from dmoe.sharding.constraints import rules_for
    from dmoe.sharding.failure import as_lines, explain

    cluster = parse_cluster(arguments.cluster)
    # A misspelt table is a mistake, not a lack of memory.
    rules_for(model.tables, model.config, cluster)

    def told(kind: str) -> None:
        print(f"explain-failure: tries {kind}", file=sys.stderr, flush=True)

    found = explain(model, cluster, arguments.on_device, told)
    if arguments.json:
        print(json.dumps(found.as_json(), indent=1))
    else:
        for line in as_lines(found, max(arguments.top, 0)):
            print(line)
    return 0 if found.step else 1
