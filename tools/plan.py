"""Sharding plans without a GPU: made, read, questioned, compared and kept. Each command is a file of tools/plan_commands/."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dmoe.errors import run_command
from tools.commands import add_commands


def main() -> int | None:
    parser = argparse.ArgumentParser(prog="tools/plan.py", description=__doc__)
    add_commands(parser, "plan_commands", "command", "COMMAND")
    arguments = parser.parse_args()
    result: int | None = arguments.run(arguments)
    return result


if __name__ == "__main__":
    sys.exit(run_command("tools/plan.py", main))
