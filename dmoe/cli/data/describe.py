"""Describe a data set: rows, labels, ids, skew and memory."""

import argparse

from dmoe.names import show


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="D", help="folder of the data set")
    parser.add_argument("--html", metavar="F", help="also write a self-contained HTML page with plots")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def run(arguments: argparse.Namespace) -> None:
    from dmoe.data.dataset.describe import describe
    from dmoe.data.dataset.describe_words import as_lines
    from dmoe.json_text import format_json

    description = describe(arguments.data)
    show(format_json(description.as_json(), indent=1) if arguments.json else "\n".join(as_lines(description)))
    if arguments.html:
        from dmoe.paths import write_output
        from dmoe.report.data_page import data_page

        with write_output(arguments.html) as file:
            file.write(data_page(description).encode())
