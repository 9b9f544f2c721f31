"""Makes a scorer the current version of a pointer file, once it has been loaded, checked and tried out. dmoe serve takes it over soon.

dmoe versions publish --pointer scorers/current scorers/tuesday
"""

import argparse
import sys

from dmoe.cli.versions.show import tell


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("scorer", help="a folder that dmoe export wrote")
    parser.add_argument("--pointer", required=True, help="the file that dmoe serve --model follows; a new one where there is none")
    parser.add_argument("--as-it-is", action="store_true", help="add no ONNX graphs to a scorer that has none; dmoe serve is slower then")


def run(arguments: argparse.Namespace) -> None:
    from dmoe.names import show
    from dmoe.serve.pointer import publish
    from dmoe.serve.portable.export import complete
    from dmoe.serve.server.versions import load_version

    if not arguments.as_it_is and complete(arguments.scorer):
        show(f"{arguments.scorer}: now with its ONNX graphs, by which dmoe serve is fastest", sys.stderr)
    tell(publish(arguments.pointer, arguments.scorer, load_version))
