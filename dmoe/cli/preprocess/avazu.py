"""Avazu's train.csv: id, click, hour, C1, ..., C21."""

import argparse

from dmoe.cli.preprocess.common import add_options
from dmoe.cli.preprocess.common import run as make


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--protocol", choices=("x4", "x1", "multi_embedding"), default="x4", help="whose features and defaults (x4); see docs/logs.md"
    )
    parser.add_argument("--drop", default="", metavar="NAMES", help="columns to leave out, such as device_id,device_ip")
    add_options(parser)
    parser.add_argument("--min-count", type=int, help="occurrences in the train split that earn a token its own id (the protocol's)")
    parser.add_argument("--split", help="shares of train, validation and test (the protocol's)")
    parser.add_argument("--split-by", choices=("random", "time"), help="by a hash of seed and row, or by hour (the protocol's)")


def run(arguments: argparse.Namespace) -> None:
    from dmoe.data.log.avazu import PROTOCOLS, avazu_schema

    drop = tuple(name for name in arguments.drop.split(",") if name)
    schema = avazu_schema(arguments.protocol, drop)
    defaults = {name: PROTOCOLS[arguments.protocol][name] for name in ("min_count", "split", "split_by")}
    given = {name: value for name in defaults if (value := getattr(arguments, name)) is not None}
    make(arguments, schema=schema, where="avazu", dataset="avazu", **(defaults | given))
