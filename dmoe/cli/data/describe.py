"""Describe a data set: rows, labels, ids, skew and memory."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="D", help="folder of the data set")
    parser.add_argument("--html", metavar="F", help="also write a self-contained HTML page with plots")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def run(arguments: argparse.Namespace) -> None:
    from dmoe.cli.view import show_view
    from dmoe.data.dataset.describe import describe
    from dmoe.data.dataset.describe_view import describe_document

    description = describe(arguments.data)
    show_view(describe_document(description), arguments.html, description.as_json() if arguments.json else None)
