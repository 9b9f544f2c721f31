"""Sharding plans without a GPU: made, read, questioned, compared and kept. Each command is a file of tools/plan_commands/."""

import argparse
import importlib
import pkgutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dmoe.errors import run_command


def main() -> int | None:
    parser = argparse.ArgumentParser(prog="tools/plan.py", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for found in pkgutil.iter_modules([str(Path(__file__).with_name("plan_commands"))]):
        command = importlib.import_module(f"tools.plan_commands.{found.name}")
        command.add(commands).set_defaults(run=command.run)
    arguments = parser.parse_args()
    result: int | None = arguments.run(arguments)
    return result


if __name__ == "__main__":
    sys.exit(run_command("tools/plan.py", main))
