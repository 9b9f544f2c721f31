"""Makes a scorer the current version of a pointer file, once it has been loaded, checked and tried out. dmoe serve takes it over soon.

dmoe versions publish --pointer scorers/current scorers/tuesday
"""

import argparse

from dmoe.cli.versions.show import tell


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("scorer", help="a folder that dmoe export wrote")
    parser.add_argument("--pointer", required=True, help="the file that dmoe serve --model follows; a new one where there is none")


def run(arguments: argparse.Namespace) -> None:
    from dmoe.serve.pointer import publish
    from dmoe.serve.server.versions import load_version

    tell(publish(arguments.pointer, arguments.scorer, load_version))
