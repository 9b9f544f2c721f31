"""Tells about runs: `tools/report.py runs RUN... --output page.html` prints a table and writes a page with curves and heat-maps."""

import argparse
import sys

from dmoe.errors import run_command


def main() -> None:
    parser = argparse.ArgumentParser(prog="tools/report.py", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    runs = commands.add_parser("runs", help="a table and a page on finished runs")
    runs.add_argument("run", nargs="+", help="directories of finished runs")
    runs.add_argument("--output", help="the HTML page to write")
    runs.add_argument("--title", default="dmoe runs")
    arguments = parser.parse_args()

    from dmoe.paths import PATHS
    from dmoe.report.page import page
    from dmoe.report.runs import as_text, load_run, table

    found = [load_run(path) for path in arguments.run]
    print(as_text(table(found)))
    if arguments.output:
        with PATHS.open(arguments.output, "w") as file:
            file.write(page(found, arguments.title))
        print(f"page: {arguments.output}")


if __name__ == "__main__":
    sys.exit(run_command("tools/report.py", main))
