"""Any delimited or parquet log, described by a schema file."""

import argparse

from dmoe.cli.options import add_log_format, add_options
from dmoe.cli.preprocess import common
from dmoe.data.prepare.options import Options
from dmoe.data.prepare.schema import shipped
from dmoe.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--schema",
        metavar="S",
        help=f"schema file (YAML, docs/logs.md), or a shipped schema: {', '.join(shipped())}; with --vocabulary, that data set's is used",
    )
    add_options(parser, Options)
    add_log_format(parser)


def run(arguments: argparse.Namespace) -> None:
    if bool(arguments.schema) == bool(arguments.vocabulary):
        raise UserError("--schema: give a schema file, or --vocabulary with a data set that keeps its own")
    common.run(arguments, schema=arguments.schema)
