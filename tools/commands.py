"""A tool's sub-commands, a file each: found by their folder, so that adding one is adding its file."""

import argparse
import importlib
import pkgutil
from pathlib import Path


def add_commands(parser: argparse.ArgumentParser, folder: str, dest: str, metavar: str) -> None:
    """Adds the commands of `tools/FOLDER`: every file there with `add(commands)`, which returns its parser, and `run(arguments)`."""
    commands = parser.add_subparsers(dest=dest, required=True, metavar=metavar)
    for found in pkgutil.iter_modules([str(Path(__file__).with_name(folder))]):
        command = importlib.import_module(f"tools.{folder}.{found.name}")
        if hasattr(command, "add"):
            command.add(commands).set_defaults(run=command.run)
