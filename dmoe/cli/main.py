"""The console script `dmoe`: finds the command, parses its options and runs it."""

import argparse
import contextlib
import importlib
import io
import os
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType

import dmoe
from dmoe import terminal
from dmoe.errors import UserError, run_command
from dmoe.processes import alive
from dmoe.processes.interrupts import interruptible
from dmoe.train.output.log_filters import quiet

DESCRIPTION = "De-correlated mixture of experts for click-through-rate prediction, sharded with TorchRec."


def main(arguments: Sequence[str] | None = None, program: str = "dmoe", path: Sequence[str] = ()) -> int:
    """Runs a command.

    Args:
        arguments: the words after the name of the program; those of this process if absent.
        program: start of usage and error messages.
        path: the command that `program` stands for: `dmoe.train` stands for ["train"].

    Returns:
        The exit code: 0, 2 for a mistake of the user, or another one of the command.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    with interruptible(program):
        spoken, module, parsed = parse(words, program, path)
    if found := getattr(parsed, "log_format", None):
        terminal.use(found)
    quiet()
    shown = program if path else spoken
    on_ranks = getattr(module, "RUNS_ON_RANKS", False)
    if on_ranks(parsed) if callable(on_ranks) else on_ranks:
        from dmoe.train.elastic.exit_codes import run_rank

        return run_rank(shown, lambda: module.run(parsed))
    if sys.stderr.isatty():
        alive.begin()
    try:
        return run_command(shown, lambda: _run(module, parsed))
    finally:
        alive.end()


def _run(module: ModuleType, parsed: argparse.Namespace) -> int | None:
    """Runs a command, unless a file that it would write is one that it reads.

    Raises:
        UserError: it is. The raw log would be replaced by its scores.
    """
    words = [(name, word) for name, value in vars(parsed).items() for word in (value if isinstance(value, list) else [value])]
    files = [(name, word) for name, word in words if isinstance(word, str) and os.path.isfile(word)]
    for name, output in files:
        if name in ("output", "html") and any(os.path.samefile(output, word) for other, word in files if other != name):
            raise UserError(f"--{name} {output}: this command reads that file, and would replace it; name another one")
    code: int | None = module.run(parsed)
    return code


def parse(words: Sequence[str], program: str = "dmoe", path: Sequence[str] = ()) -> tuple[str, ModuleType, argparse.Namespace]:
    """Finds the command and parses its options. If they are wrong, exits with code 2 and the usage.

    Returns:
        The command as it was typed, such as `dmoe plan make`; its module; its options.
    """
    words, spoken = list(words), program
    module: ModuleType = importlib.import_module("dmoe.cli")
    for name in path:
        module = importlib.import_module(module.COMMANDS[name][0])
    while hasattr(module, "COMMANDS"):
        if not words or words[0] not in module.COMMANDS:
            # Prints the help, or an error with the list of commands, and exits.
            group_parser(spoken, module, top=module.__name__ == "dmoe.cli").parse_args(words or ["--help"])
        name = words.pop(0)
        spoken, module = f"{spoken} {name}", importlib.import_module(module.COMMANDS[name][0])
    return spoken, module, command_parser(spoken, module).parse_args(words)


def checked(words: Sequence[str]) -> argparse.Namespace:
    """Parses the words of a command that another program will run, such as ["serve", "--model", "m"].

    Raises:
        UserError: an option or value is wrong.
    """
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return parse(words)[2]
    except SystemExit:
        message = said.getvalue().strip().splitlines()[-1:] or [": error: its help was asked for"]
        raise UserError(f"dmoe {words[0]}: {message[0].partition(': error: ')[2]}") from None


def every_command(package: str = "dmoe.cli") -> list[list[str]]:
    """The words of every command that is not a group: [["preprocess", "criteo"], ..., ["train"], ...]."""
    found = []
    for name, (module, _) in importlib.import_module(package).COMMANDS.items():
        group = hasattr(importlib.import_module(module), "COMMANDS")
        found += [[name, *rest] for rest in every_command(module)] if group else [[name]]
    return found


def group_parser(program: str, package: ModuleType, top: bool = False) -> argparse.ArgumentParser:
    """The parser of a group. It knows the names and one-line helps of the commands, and imports none of them."""
    parser = argparse.ArgumentParser(prog=program, description=DESCRIPTION if top else package.__doc__)
    if top:
        parser.add_argument("--version", action="version", version=f"dmoe {dmoe.__version__}")
    add_names(parser, package.COMMANDS)
    return parser


def add_names(parser: argparse.ArgumentParser, commands: Mapping[str, tuple[str, str]]) -> dict[str, argparse.ArgumentParser]:
    """Adds the commands of a group without their options; returns their parsers."""
    added = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    return {name: added.add_parser(name, help=text) for name, (_, text) in commands.items()}


def command_parser(program: str, module: ModuleType) -> argparse.ArgumentParser:
    """The parser of one command."""
    parser = argparse.ArgumentParser(prog=program, description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    module.add_arguments(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
