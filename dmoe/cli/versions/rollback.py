"""Go back to an earlier version in a pointer file. The version is loaded, checked and tested first.

dmoe versions rollback --pointer scorers/current
"""

import argparse

from dmoe.cli.versions.show import tell


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pointer", required=True, help="the file that dmoe serve --model follows")
    parser.add_argument(
        "--to", default="", metavar="NAME", help="name of an earlier version in the output of dmoe versions show (default: the last one)"
    )


def run(arguments: argparse.Namespace) -> None:
    from dmoe.serve.pointer import rollback
    from dmoe.serve.server.versions import load_version

    tell(rollback(arguments.pointer, load_version, arguments.to))
