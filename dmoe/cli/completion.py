"""Print the completion script for a shell.

dmoe completion bash > ~/.local/share/bash-completion/completions/dmoe
dmoe completion zsh > ~/.zfunc/_dmoe
"""

import argparse
import importlib
from types import ModuleType


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=("bash", "zsh", "tcsh"))


def run(arguments: argparse.Namespace) -> None:
    import shtab

    from dmoe.cli.main import group_parser

    package = importlib.import_module("dmoe.cli")
    parser = group_parser("dmoe", package, top=True)
    _fill(parser, package)
    print(shtab.complete(parser, shell=arguments.shell))


def _fill(parser: argparse.ArgumentParser, package: ModuleType) -> None:
    """Adds the options of all commands of a group to its parser."""
    from dmoe.cli.main import add_names

    # argparse keeps the parsers of sub-commands in an action, without a public way to get them.
    (action,) = (one for one in parser._actions if isinstance(one, argparse._SubParsersAction))
    for name, (module_name, _) in package.COMMANDS.items():
        module, below = importlib.import_module(module_name), action.choices[name]
        if hasattr(module, "COMMANDS"):
            add_names(below, module.COMMANDS)
            _fill(below, module)
        else:
            module.add_arguments(below)
