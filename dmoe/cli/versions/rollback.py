"""Goes back to an earlier version that a pointer file names; it is loaded, checked and tried out first.

dmoe versions rollback --pointer scorers/current
"""

import argparse

from dmoe.cli.versions.show import tell


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pointer", required=True, help="the file that dmoe serve --model follows")
    parser.add_argument("--to", default="", metavar="NAME", help="one of its earlier versions, as dmoe versions show has it (the last one)")


def run(arguments: argparse.Namespace) -> None:
    from dmoe.serve.pointer import rollback
    from dmoe.serve.server.versions import load_version

    tell(rollback(arguments.pointer, load_version, arguments.to))
