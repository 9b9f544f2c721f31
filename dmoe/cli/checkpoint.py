"""Inspect, verify, compare or export checkpoints. Needs neither torch nor a process group."""

import argparse

from dmoe.names import show


def add_arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="command", required=True)
    inspect = commands.add_parser("inspect", help="show step, tables and sizes, without reading the weights")
    verify = commands.add_parser("verify", help="read every file and compare its checksum; exit code 2 if a file is damaged")
    export = commands.add_parser("export", help="write the weights as plain safetensors, one tensor for each logical table")
    diff = commands.add_parser("diff", help="show the largest difference of every tensor of two checkpoints; exit code 1 if they differ")
    for command in (inspect, verify, export):
        command.add_argument("checkpoint", help="folder of a checkpoint, or of a run, whose newest checkpoint is used")
    export.add_argument("--output", required=True, help="a .safetensors file, or with --per-table a folder")
    export.add_argument("--per-table", action="store_true", help="write a file for each table, and one for the dense part")
    export.add_argument("--states", action="store_true", help="write the optimizer states too")
    diff.add_argument("a")
    diff.add_argument("b")
    diff.add_argument(
        "--tolerance", type=float, default=0.0, help="allowed difference, relative to the largest entry of a tensor (default 0: bit-equal)"
    )


def run(arguments: argparse.Namespace) -> int:
    from dmoe.checkpoint import inspect as look
    from dmoe.checkpoint.of_run import newest

    if arguments.command != "diff":
        folder = newest(arguments.checkpoint)
        if arguments.command == "export":
            show(look.export(folder, arguments.output, arguments.per_table, arguments.states))
        else:
            show(look.inspect(folder) if arguments.command == "inspect" else look.verify(folder))
        return 0
    lines, differ = look.diff(newest(arguments.a), newest(arguments.b), arguments.tolerance)
    show("\n".join(lines))
    return int(differ)
