"""Rows, labels, ids, skew and memory of a data set."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="D", help="the data set's folder")
    parser.add_argument("--html", metavar="F", help="a page with pictures as well, one self-contained file")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def run(arguments: argparse.Namespace) -> None:
    from dmoe.cli.view import show_view
    from dmoe.data.dataset.describe import describe
    from dmoe.data.dataset.describe_view import describe_document

    description = describe(arguments.data)
    show_view(describe_document(description), arguments.html, description.as_json() if arguments.json else None)
