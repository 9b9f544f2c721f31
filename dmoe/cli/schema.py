"""Propose a schema for a raw log from a sample of its rows, with the reasons as comments; or show a shipped schema.

dmoe schema clicks.csv > schema.yaml
dmoe preprocess log --schema schema.yaml --input clicks.csv --output data/clicks
"""

import argparse
import os

from dmoe.errors import UserError, nearest
from dmoe.names import show


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("log", nargs="*", metavar="F", help="files, folders or globs, as of dmoe preprocess --input; - is standard input")
    parser.add_argument("--sample", type=int, default=100_000, metavar="N", help="approximate number of rows to sample (%(default)s)")
    parser.add_argument("--label", metavar="COLUMN", help="the label column, if dmoe schema cannot find it")
    parser.add_argument("--positive", metavar="VALUE", help="the value of the label that means 1; every other value is 0")
    parser.add_argument("--delimiter", metavar="C", help="the character between fields; \\t is a tab")
    parser.add_argument("--header", choices=("yes", "no"), help="whether the first line names the columns")
    parser.add_argument("--columns", metavar="NAMES", help="names of the columns of a log without a header, such as user,item,rating,time")
    parser.add_argument("--output", metavar="F2", help="write the schema to this file instead of printing it")
    parser.add_argument("--list", action="store_true", help="list the shipped schemas")
    parser.add_argument("--show", metavar="NAME", help="print a shipped schema")


def run(arguments: argparse.Namespace) -> None:
    from dmoe.data.prepare.schema import SHIPPED, shipped

    if arguments.list or arguments.show:
        if arguments.show and arguments.show not in shipped():
            raise UserError(f"--show {arguments.show}: no such schema{nearest(arguments.show, shipped())}")
        if arguments.list:
            for name in shipped():
                with open(os.path.join(SHIPPED, f"{name}.yaml")) as file:
                    show(f"{name}: {file.readline().removeprefix('# ').strip()}")
        else:
            with open(os.path.join(SHIPPED, f"{arguments.show}.yaml")) as file:
                show(file.read().rstrip("\n"))
        return
    if not arguments.log:
        raise UserError("name a log, or give --list or --show")
    if arguments.sample < 1:
        raise UserError(f"--sample is {arguments.sample}, expected 1 or more")
    delimiter = "\t" if arguments.delimiter == "\\t" else arguments.delimiter
    if delimiter is not None and (len(delimiter) != 1 or not delimiter.isascii() or delimiter in '\r\n"'):
        raise UserError(f"--delimiter {delimiter}: expected one ASCII character")
    from dmoe.cli.view import write_page
    from dmoe.data.prepare.propose.proposal import propose
    from dmoe.data.prepare.propose.sample import Asked

    asked = Asked(
        arguments.sample,
        delimiter,
        None if arguments.header is None else arguments.header == "yes",
        tuple(arguments.columns.split(",")) if arguments.columns else (),
    )
    text = propose(arguments.log, asked, arguments.label, arguments.positive, arguments.output or "schema.yaml")
    if not arguments.output:
        show(text.rstrip("\n"))
        return
    write_page(arguments.output, text)
