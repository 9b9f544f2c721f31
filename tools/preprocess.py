"""Turns raw click logs into a data set for training: parquet shards, vocabularies and a manifest.

    python tools/preprocess.py criteo --input day_*.tsv.gz --output data/criteo

Killed or interrupted, the same command continues where it was. Each format is a file of tools/preprocess_commands/.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dmoe.errors import run_command
from tools.commands import add_commands


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tools/preprocess.py", description="Turn raw click logs into a data set for training.")
    add_commands(parser, "preprocess_commands", "format", "FORMAT")
    return parser


def main() -> None:
    arguments = make_parser().parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    sys.exit(run_command("tools/preprocess.py", main))
