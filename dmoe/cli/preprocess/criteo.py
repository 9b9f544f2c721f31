"""Label, I1..I13, C1..C26: tab-separated, or CSV with a header."""

import argparse

from dmoe.cli.options import add_log_format, add_options
from dmoe.cli.preprocess import common
from dmoe.data.prepare.options import Options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_options(parser, Options)
    add_log_format(parser)


def run(arguments: argparse.Namespace) -> None:
    common.run(arguments, schema="criteo")
