"""Data sets that are there: described, shuffled, exported. Each command is a file of tools/data_commands/."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dmoe.errors import run_command
from tools.commands import add_commands


def main() -> int | None:
    parser = argparse.ArgumentParser(prog="tools/data.py", description=__doc__)
    add_commands(parser, "data_commands", "command", "COMMAND")
    arguments = parser.parse_args()
    result: int | None = arguments.run(arguments)
    return result


if __name__ == "__main__":
    sys.exit(run_command("tools/data.py", main))
