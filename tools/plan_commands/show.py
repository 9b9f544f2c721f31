"""`tools/plan.py show`: what each rank holds and does, and where each table lies."""

import argparse
from typing import Any


def add(commands: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser("show", help="what each rank holds and does, and where each table lies")
    parser.add_argument("plan", help="a plan file, such as a run's plan.json")
    parser.add_argument("--top", type=int, help="the largest tables only, this many")
    return parser


def run(arguments: argparse.Namespace) -> None:
    from dmoe.sharding.kept import read_plan
    from dmoe.sharding.show import as_lines

    for line in as_lines(read_plan(arguments.plan), arguments.top):
        print(line)
