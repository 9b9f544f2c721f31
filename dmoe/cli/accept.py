"""Proves dmoe on this machine or cluster: stages from drivers to a lost rank, each bounded in time, with a verdict and what it means.

dmoe accept --report accept.html
torchrun --nnodes 2 --nproc-per-node 8 ... -m dmoe.accept --level full --folder /shared/accept

Alone it starts a rank a GPU, or two on a CPU. Exit code 1 where a stage failed. `--level dense` needs PyTorch alone.
"""

import argparse
import os
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--level",
        choices=("quick", "full", "dense"),
        default="quick",
        help="quick: 5 minutes at most; full: 20, with more cases; dense: what needs neither TorchRec nor FBGEMM (quick)",
    )
    parser.add_argument("--only", nargs="+", default=[], metavar="STAGE", help="these stages of the level")
    parser.add_argument("--report", metavar="FILE", help="one self-contained HTML page")
    parser.add_argument("--json", metavar="FILE", help="the same content as JSON")
    parser.add_argument("--names", action="store_true", help="keep host names and paths in the files; else they are masked")
    parser.add_argument("--folder", default="", help="on a disk that all hosts see, for what the stages write; a temporary one on one host")
    parser.add_argument("--ranks", type=int, metavar="N", help="ranks to start, where no launcher does")
    parser.add_argument("--minutes", type=float, metavar="M", help="for all stages together, in place of the level's own")


def run(arguments: argparse.Namespace) -> int:
    from dmoe.accept.finding import FAILED
    from dmoe.accept.program import Options, accept
    from dmoe.accept.report import as_data, as_line, as_page, counts, summary
    from dmoe.accept.stages import STAGES
    from dmoe.errors import UserError
    from dmoe.json_text import format_json
    from dmoe.names import show

    def told(finding: object) -> None:
        for line in as_line(finding):  # type: ignore[arg-type]
            show(line)

    # A rank that is killed, on purpose or in its bound, leaves semaphores to multiprocessing's tracker, which warns of them at the end.
    ignored = "ignore::UserWarning:multiprocessing.resource_tracker"
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, (os.environ.get("PYTHONWARNINGS"), ignored)))
    for option, path in (("--report", arguments.report), ("--json", arguments.json)):
        # Five minutes later is late for this to be said.
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
        from dmoe.paths import write_output
    except ModuleNotFoundError:
        # Where PyTorch alone is installed, a local file is what there is.
        Path(path).write_text(text)
        return
    with write_output(path) as file:
        file.write(text.encode())
