"""Turns a run's best checkpoint into a scorer that needs neither TorchRec nor the sharding plan.

dmoe export --run runs/dmoe --output scorers/dmoe --rows int8
"""

import argparse

from dmoe.names import show


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run", required=True, help="the run's directory")
    parser.add_argument("--output", required=True, help="the scorer's folder")
    parser.add_argument("--rows", choices=("fp32", "fp16", "int8", "pq"), default="fp32", help="numbers of the embedding rows (fp32)")
    parser.add_argument("--step", type=int, help="another checkpoint than the best")
    parser.add_argument(
        "--check", type=int, default=20_000, metavar="ROWS", help="compare with the run's own scores on so many rows (20000)"
    )


def run(arguments: argparse.Namespace) -> None:
    from dmoe.model.sizes import human
    from dmoe.paths import PATHS, join
    from dmoe.serve.check import against_run
    from dmoe.serve.export import export
    from dmoe.serve.format import DENSE, TABLES

    about = export(arguments.run, arguments.output, arguments.rows, arguments.step)
    size = sum(_size(PATHS, join(arguments.output, name)) for name in (TABLES, DENSE))
    show(f"{arguments.output}: {about.variant} of step {about.step:,}, {len(about.experts)} expert(s), {about.rows} rows, {human(size)}")
    if arguments.check:
        show(against_run(arguments.run, arguments.output, arguments.check))


def _size(paths, path: str) -> int:  # type: ignore[no-untyped-def]
    with paths.open(path, "rb") as file:
        return int(file.seek(0, 2))
