"""Show the arm of each unit of a split, as `dmoe serve --split` assigns it, and how many units change their arm from an earlier file.

dmoe ab assign --split split.yaml --unit u1 u2
dmoe ab assign --split grown.yaml --before split.yaml
"""

import argparse
import sys

from dmoe.errors import UserError
from dmoe.names import show


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--split", required=True, metavar="FILE", help="YAML file of the split")
    parser.add_argument("--unit", nargs="+", default=[], help="units to assign; `-` reads one on each line of stdin")
    parser.add_argument("--before", metavar="FILE", help="an earlier file of the split: show how many units change their arm")


def run(arguments: argparse.Namespace) -> int:
    from dmoe.serve.ab.split import BUCKETS, OUTSIDE, Assigner, read_split

    if not arguments.unit and not arguments.before:
        raise UserError("--unit, --before: expected at least one of them")
    assigner = Assigner(read_split(arguments.split, f"--split {arguments.split}"))
    units = arguments.unit
    if units == ["-"]:
        units = [line.rstrip("\n") for line in sys.stdin]
    for unit, arm in zip(units, assigner.arms_of(units), strict=True):
        show(f"{arm if arm != OUTSIDE else '(none)'} {unit}")
    if arguments.before:
        moved = assigner.moved_from(Assigner(read_split(arguments.before, f"--before {arguments.before}")))
        show(f"{moved / BUCKETS:.2%} of all units change their arm" if moved else "no unit changes its arm")
        return 1 if moved else 0
    return 0
