"""Export the best checkpoint of a run as a scorer, which needs neither TorchRec nor the sharding plan, or for other runtimes.

dmoe export --run runs/dmoe --output scorers/dmoe --rows int8
dmoe export --run runs/dmoe --output scorers/dmoe --format onnx
dmoe export --run runs/dmoe --output scorers/dmoe --register clicks
"""

import argparse

from dmoe.errors import UserError
from dmoe.names import show
from dmoe.processes.alive import note


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run", required=True, help="directory of the run")
    parser.add_argument("--output", required=True, help="folder of the scorer")
    parser.add_argument("--rows", choices=("fp32", "fp16", "int8", "pq"), default="fp32", help="number format of the embedding rows (fp32)")
    parser.add_argument(
        "--format",
        choices=("scorer", "onnx", "aoti", "triton"),
        default="scorer",
        help="what to write in addition to the scorer: onnx, ONNX files of the whole model and of its dense part; aoti, the dense part"
        " compiled for the processor of this machine; triton, a model repository with the ONNX files (scorer)",
    )
    parser.add_argument(
        "--products",
        choices=("fp32", "int8"),
        default="fp32",
        help="number format of the matrix products in ONNX files; int8 is faster and less exact (fp32)",
    )
    parser.add_argument("--name", default="dmoe", help="name of the model in a Triton repository (dmoe)")
    parser.add_argument("--step", type=int, help="step of the checkpoint (default: the best one)")
    parser.add_argument(
        "--register", default="", metavar="MODEL", help="also register it with the trackers of the run, as the next version of this model"
    )
    parser.add_argument(
        "--check", type=int, default=20_000, metavar="ROWS", help="compare with the scores of the run on this many rows (20000)"
    )


def run(arguments: argparse.Namespace) -> None:
    note("loads PyTorch")
    from dmoe.model.budget.sizes import human
    from dmoe.serve.export.check import against_run, effect_on_test
    from dmoe.serve.export.export import export
    from dmoe.serve.export.format import DENSE, TABLES
    from dmoe.serve.export.register import check_register, register
    from dmoe.serve.portable.export import add_format, check_format, scorer_folder
    from dmoe.storage.paths import PATHS, join

    check_format(arguments.format, arguments.output, arguments.name)
    if arguments.products != "fp32" and arguments.format not in ("onnx", "triton"):
        raise UserError(f"--products {arguments.products}: of ONNX files; give --format onnx or triton with it")
    trackers = check_register(arguments.run, arguments.register) if arguments.register else []
    folder = scorer_folder(arguments.format, arguments.output, arguments.name)
    note("exports the checkpoint")
    about = export(arguments.run, folder, arguments.rows, arguments.step)
    size = sum(_size(PATHS, join(folder, name)) for name in (TABLES, DENSE))
    show(f"{folder}: {about.variant} of step {about.step:,}, {len(about.experts)} expert(s), {about.rows} rows, {human(size)}")
    if arguments.format != "scorer":
        note(f"makes and compares the files of {arguments.format}")
        for name, one in add_format(folder, arguments.format, arguments.name, min(arguments.check, 5000), arguments.products).items():
            against = f"against the scorer on {one.rows:,} rows, by {one.runtime}"
            show(f"{join(folder, name)}: logits differ by {one.logit:.2g} at most, probabilities by {one.probability:.2g}, {against}")
        if arguments.products != "fp32" and arguments.check and (told := effect_on_test(arguments.run, folder, arguments.check)):
            show(told)
    if arguments.check:
        note("compares with the run's own scores")
        show(against_run(arguments.run, folder, arguments.check))
    note("registers the scorer")
    for name in register(arguments.run, folder, arguments.register, trackers):
        show(f"registered: {name}")


def _size(paths, path: str) -> int:  # type: ignore[no-untyped-def]
    with paths.open(path, "rb") as file:
        return int(file.seek(0, 2))
