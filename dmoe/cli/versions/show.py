"""Show the current version in a pointer file, and earlier ones.

dmoe versions show --pointer scorers/current
"""

import argparse

from dmoe.names import show


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pointer", required=True, help="the file that dmoe serve --model follows")


def run(arguments: argparse.Namespace) -> None:
    from dmoe.serve.pointer import read_pointer

    tell(read_pointer(arguments.pointer))


def tell(names: list[str]) -> None:
    for index, name in enumerate(names):
        show(f"{'current' if index == 0 else 'before '}  {name}")
