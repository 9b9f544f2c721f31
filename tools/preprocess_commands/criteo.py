"""Criteo's click logs."""

import argparse
from typing import Any

from dmoe.cli.options import add_options
from dmoe.data.prepare.options import Options
from tools.preprocess_commands import common


def add(commands: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser("criteo", help="label, I1..I13, C1..C26: tab-separated, or CSV with a header")
    add_options(parser, Options)
    return parser


def run(arguments: argparse.Namespace) -> None:
    common.run(arguments, schema="criteo")
