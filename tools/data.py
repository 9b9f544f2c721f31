"""Data sets that are there: described, shuffled, exported. Each command is a file of tools/data_commands/."""

import argparse
import importlib
import pkgutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dmoe.errors import run_command


def main() -> int | None:
    parser = argparse.ArgumentParser(prog="tools/data.py", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for found in pkgutil.iter_modules([str(Path(__file__).with_name("data_commands"))]):
        command = importlib.import_module(f"tools.data_commands.{found.name}")
        command.add(commands).set_defaults(run=command.run)
    arguments = parser.parse_args()
    result: int | None = arguments.run(arguments)
    return result


if __name__ == "__main__":
    sys.exit(run_command("tools/data.py", main))
