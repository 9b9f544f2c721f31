"""Test dmoe on this machine or cluster, in stages from drivers to a lost rank. Each stage has a time limit, and ends with a verdict.

dmoe accept --report accept.html
torchrun --nnodes 2 --nproc-per-node 8 ... -m dmoe.accept --level full --folder /shared/accept

Without torchrun it starts one rank for each GPU, or two ranks on a CPU. The exit code is 1 if a stage failed. `--level dense` needs only
PyTorch.
"""

import argparse
import os
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--level",
        choices=("quick", "full", "dense"),
        default="quick",
        help="quick: at most 5 minutes; full: at most 20, with more cases; dense: only stages without TorchRec and FBGEMM (quick)",
    )
    parser.add_argument("--only", nargs="+", default=[], metavar="STAGE", help="run only these stages of the level")
    parser.add_argument("--report", metavar="FILE", help="write the results as a self-contained HTML page")
    parser.add_argument("--json", metavar="FILE", help="write the results as JSON")
    parser.add_argument("--names", action="store_true", help="write host names and paths to the files (default: masked)")
    parser.add_argument(
        "--folder",
        default="",
        help="folder for the files of the stages, on a disk that all hosts see (default on one host: a temporary one)",
    )
    parser.add_argument("--ranks", type=int, metavar="N", help="number of ranks to start, without a launcher")
    parser.add_argument("--minutes", type=float, metavar="M", help="time limit of all stages together (default: that of the level)")


def run(arguments: argparse.Namespace) -> int:
    from dmoe.accept.finding import FAILED
    from dmoe.accept.program import Options, accept
    from dmoe.accept.report import as_data, as_line, as_page, counts, summary
    from dmoe.accept.stages.stages import STAGES
    from dmoe.errors import UserError
    from dmoe.json_text import format_json
    from dmoe.names import show

    def told(finding: object) -> None:
        for line in as_line(finding):  # type: ignore[arg-type]
            show(line)

    # A rank that is killed (as a test, or because of the time limit) leaves semaphores, of which multiprocessing would warn at the end.
    ignored = "ignore::UserWarning:multiprocessing.resource_tracker"
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, (os.environ.get("PYTHONWARNINGS"), ignored)))
    for option, path in (("--report", arguments.report), ("--json", arguments.json)):
        # Report this mistake now, not after five minutes.
        if path and "://" not in path and not Path(path).parent.is_dir():
            raise UserError(f"{option} {path}: no folder '{Path(path).parent}'; make it first")
    options = Options(arguments.level, arguments.only, arguments.minutes, arguments.ranks, arguments.folder)
    found = accept(options, STAGES, told)
    if found is None:
        return 0
    findings, machine = found
    show(summary(findings))
    for path, text in (
        (arguments.report, lambda: as_page(findings, machine, arguments.names)),
        (arguments.json, lambda: format_json(as_data(findings, machine, arguments.names), indent=1)),
    ):
        if path:
            _write(path, text())
    return 1 if counts(findings)[FAILED] else 0


def _write(path: str, text: str) -> None:
    try:
        from dmoe.storage.paths import write_output
    except ModuleNotFoundError:
        # With only PyTorch installed, only local files can be written.
        Path(path).write_text(text)
        return
    with write_output(path) as file:
        file.write(text.encode())
