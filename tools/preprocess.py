"""Turns raw click logs into a data set for training: parquet shards, vocabularies and a manifest.

    python tools/preprocess.py criteo --input day_*.tsv.gz --output data/criteo

Killed or interrupted, the same command continues where it was. Each format is a file of tools/preprocess_commands/.
"""

import argparse
import importlib
import pkgutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dmoe.errors import run_command


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tools/preprocess.py", description="Turn raw click logs into a data set for training.")
    formats = parser.add_subparsers(dest="format", required=True, metavar="FORMAT")
    for found in pkgutil.iter_modules([str(Path(__file__).with_name("preprocess_commands"))]):
        command = importlib.import_module(f"tools.preprocess_commands.{found.name}")
        if hasattr(command, "add"):
            command.add(formats).set_defaults(run=command.run)
    return parser


def main() -> None:
    arguments = make_parser().parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    sys.exit(run_command("tools/preprocess.py", main))
