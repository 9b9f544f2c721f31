"""Avazu's train.csv: id, click, hour, C1, ..., C21."""

import argparse

from dmoe.cli.options import add_log_format, add_options
from dmoe.cli.preprocess import common
from dmoe.data.prepare.options import Options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--protocol",
        choices=("x4", "x1", "multi_embedding"),
        default="x4",
        help="published protocol that decides the features and the defaults of --min-count, --split and --split-by (x4); see docs/logs.md",
    )
    parser.add_argument("--drop", default="", metavar="NAMES", help="columns to leave out, such as device_id,device_ip")
    add_options(parser, Options, min_count=None, split=None, split_by=None)
    add_log_format(parser)


def run(arguments: argparse.Namespace) -> None:
    from dmoe.data.prepare.avazu_protocols import PROTOCOLS, avazu_schema

    drop = tuple(name for name in arguments.drop.split(",") if name)
    schema = avazu_schema(arguments.protocol, drop)
    protocol = {name: PROTOCOLS[arguments.protocol][name] for name in ("min_count", "split", "split_by")}
    given = {name: value for name in protocol if (value := getattr(arguments, name)) is not None}
    common.run(arguments, schema=schema, dataset="avazu", **(protocol | given))
