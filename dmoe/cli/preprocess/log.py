"""Any delimited or parquet log, described by a schema file."""

import argparse

from dmoe.cli.preprocess.common import add_options
from dmoe.cli.preprocess.common import run as make
from dmoe.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--schema", metavar="S", help="YAML: label, features, weight, time, group (docs/logs.md); kept with --vocabulary")
    add_options(parser)
    parser.add_argument("--min-count", type=int, default=10, help="occurrences in the train split that earn a token its own id (10)")
    parser.add_argument("--split", default="0.8,0.1,0.1", help="shares of train, validation and test (0.8,0.1,0.1)")
    parser.add_argument(
        "--split-by",
        choices=("random", "time"),
        default="random",
        help="by a hash of seed and row, or by the time column (the log's order)",
    )


def run(arguments: argparse.Namespace) -> None:
    from dmoe.data.log.kept import load_kept
    from dmoe.data.log.schema import load_schema

    if bool(arguments.schema) == bool(arguments.vocabulary):
        raise UserError("--schema: give a schema file, or --vocabulary with a data set that keeps its own")
    schema = load_schema(arguments.schema) if arguments.schema else load_kept(arguments.vocabulary).schema
    where = arguments.schema or f"the schema of {arguments.vocabulary}"
    make(arguments, schema=schema, where=where, min_count=arguments.min_count, split=arguments.split, split_by=arguments.split_by)
