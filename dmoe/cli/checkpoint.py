"""Looks at a checkpoint: what is in it, whether it is sound, what differs from another; or writes it as plain safetensors.

Needs neither torch nor a process group, so it works wherever the files are.
"""

import argparse

from dmoe.names import show


def add_arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="command", required=True)
    inspect = commands.add_parser("inspect", help="what is in a checkpoint, without reading its numbers")
    verify = commands.add_parser("verify", help="reads every file and compares its checksum; exit code 2 where one is damaged")
    export = commands.add_parser("export", help="writes the weights as plain safetensors, a tensor a logical table")
    diff = commands.add_parser("diff", help="largest difference of every tensor of two checkpoints; exit code 1 where some differ")
    for command in (inspect, verify, export):
        command.add_argument("checkpoint", help="a checkpoint's folder, or a run's: its newest checkpoint then")
    export.add_argument("--output", required=True, help="a .safetensors file, or with --per-table a folder")
    export.add_argument("--per-table", action="store_true", help="a file for each table, and one for the dense part")
    export.add_argument("--states", action="store_true", help="the optimizer's states too")
    diff.add_argument("a")
    diff.add_argument("b")
    diff.add_argument("--tolerance", type=float, default=0.0, help="relative to a tensor's largest entry (default 0: bit-equal)")


def run(arguments: argparse.Namespace) -> int:
    from dmoe.checkpoint import inspect as look

    if arguments.command == "inspect":
        show(look.inspect(look.newest(arguments.checkpoint)))
        return 0
    if arguments.command == "verify":
        show(look.verify(look.newest(arguments.checkpoint)))
        return 0
    if arguments.command == "export":
        folder = look.newest(arguments.checkpoint)
        show(look.export(folder, arguments.output, arguments.per_table, arguments.states))
        return 0
    lines, differ = look.diff(look.newest(arguments.a), look.newest(arguments.b), arguments.tolerance)
    show("\n".join(lines))
    return int(differ)
