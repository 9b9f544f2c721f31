"""`tools/plan.py diff`: what going from one plan to another moves, and what it gains."""

import argparse
from typing import Any


def add(commands: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        "diff",
        help="what going from one plan to another moves, and what it gains",
        description="Bytes are exact, optimiser state included: each rank's rectangles less what the same rank holds already.",
    )
    parser.add_argument("a", help="a plan file")
    parser.add_argument("b", help="the plan file that it is compared with")
    parser.add_argument("--top", type=int, help="the tables with the most moved bytes only, this many")
    parser.add_argument("--json", action="store_true", help="as JSON, in bytes and milliseconds")
    return parser


def run(arguments: argparse.Namespace) -> None:
    from dmoe.errors import UserError
    from dmoe.train.quiet import quiet

    if arguments.top is not None and arguments.top < 1:
        raise UserError(f"--top {arguments.top}: expected at least 1")
    quiet()
    from dmoe.sharding.diff import as_data, as_lines, difference
    from dmoe.sharding.kept import read_plan

    found = difference(read_plan(arguments.a), read_plan(arguments.b), arguments.a, arguments.b)
    if arguments.json:
        import json

        print(json.dumps(as_data(found), indent=1))
    else:
        for line in as_lines(found, arguments.a, arguments.b, arguments.top):
            print(line)
