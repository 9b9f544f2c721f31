"""Any delimited or parquet log, described by a schema file."""

import argparse
from typing import Any

from dmoe.cli.options import add_options
from dmoe.data.prepare.options import Options
from dmoe.data.prepare.schema import shipped
from dmoe.errors import UserError
from tools.preprocess_commands import common


def add(commands: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser("log", help="any delimited or parquet log, described by a schema file")
    parser.add_argument(
        "--schema",
        metavar="S",
        help=f"YAML: label, features, weight, time, group (docs/logs.md), or one of {', '.join(shipped())}; kept with --vocabulary",
    )
    add_options(parser, Options)
    return parser


def run(arguments: argparse.Namespace) -> None:
    if bool(arguments.schema) == bool(arguments.vocabulary):
        raise UserError("--schema: give a schema file, or --vocabulary with a data set that keeps its own")
    common.run(arguments, schema=arguments.schema)
