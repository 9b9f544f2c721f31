"""dmoe preprocess beside the Polars pipeline on four logs, against the targets: one table for docs/data.md.

    nice python -m tools.bench.preparation --folder /tmp/bench/logs

The logs are those of `tools.bench.preprocess`, which says what each pipeline does: Criteo's form, Avazu's form (string tokens), a CSV
with quotes, bags and floats, and the same rows as parquet. Runs are whole processes, interleaved (one of each pipeline for each log,
round after round); wall and CPU are medians of dmoe's seconds over Polars' in the same round; the peak is the highest. dmoe's kernels
are compiled before, by a run on a small log. With the default sizes and three rounds: about 12 minutes on two idle cores, 4 GB of logs.
"""

import argparse
import os
import shutil
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tools.bench.logs import KINDS
from tools.bench.preprocess import MAIN, START_ROWS, Contender, make_log, present
from tools.bench.results import announce, loads
from tools.bench.usage import Usage

RIVAL = "polars"
NAMES = {"criteo": "Criteo", "avazu": "Avazu's form", "quoted": "quoted CSV, bags, floats", "parquet": "the same as parquet"}
TARGETS = {"criteo": (0.42, 0.40, 450), "avazu": (0.60, 0.75, 700), "quoted": (0.75, 0.85, 700), "parquet": (0.75, 0.85, 700)}
"""Of dmoe over Polars: wall, CPU; and dmoe's peak in MiB."""
HEAD = f"| log | rows | size | wall, s: dmoe, {RIVAL} | ratio (target) | CPU, s | ratio (target) | peak, MiB (target) |"


def line(kind: str, rows: int, size: int, own: Sequence[Usage], others: Sequence[Usage]) -> str:
    """A log's row of the table; a ratio or peak that misses its target is in bold type."""
    cells = [NAMES[kind], f"{rows:,}", f"{size / 1e9:.2f} GB"]
    for what, target in zip(("wall", "cpu"), TARGETS[kind], strict=False):
        mine, their = ([getattr(used, what) for used in rounds] for rounds in (own, others))
        ratio = statistics.median(one / other for one, other in zip(mine, their, strict=True))
        cells.append(f"{statistics.median(mine):.1f}, {statistics.median(their):.1f}")
        cells.append(_marked(f"{ratio:.2f}", ratio <= target) + f" ({target:.2f})")
    peak, limit = max(used.peak_mib for used in own), TARGETS[kind][2]
    cells.append(_marked(f"{peak:,.0f}", peak <= limit) + f" ({limit}), {max(used.peak_mib for used in others):,.0f}")
    return f"| {' | '.join(cells)} |"


def _marked(text: str, met: bool) -> str:
    return text if met else f"**{text}**"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--logs", default=",".join(KINDS), help="which of the logs (all)")
    parser.add_argument("--criteo-rows", type=int, default=8_000_000, help="rows of Criteo's form (%(default)s)")
    parser.add_argument("--rows", type=int, default=4_000_000, help="rows of the other logs (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="threads of either (one a core)")
    parser.add_argument("--limit", type=float, default=3600.0, metavar="S", help="seconds that a run may take")
    parser.add_argument(
        "--folder", default="", metavar="F", help="for the logs and what is made of them; a log that is there is used again"
    )
    arguments = parser.parse_args()
    arguments.keep, arguments.logs = False, arguments.logs.split(",")
    if unknown := set(arguments.logs) - set(KINDS):
        parser.error(f"no such log: {', '.join(sorted(unknown))}")
    if arguments.rounds < 1 or min(arguments.rows, arguments.criteo_rows) < START_ROWS:
        parser.error(f"at least 1 round and {START_ROWS:,} rows")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    announce()
    folder = Path(arguments.folder or tempfile.mkdtemp(prefix="dmoe-preparation-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        race(folder, arguments)
    finally:
        if not arguments.folder:
            shutil.rmtree(folder)


def race(folder: Path, arguments: argparse.Namespace) -> None:
    pairs: dict[str, list[Contender]] = {kind: present([MAIN, RIVAL], "") for kind in arguments.logs}
    rows_of = {kind: arguments.criteo_rows if kind == "criteo" else arguments.rows for kind in arguments.logs}
    made = {kind: make_log(folder, kind, rows, headed=False) for kind, rows in rows_of.items()}

    def run(kind: str, contender: Contender, rows: int, log: Path) -> Usage:
        arguments.log = kind
        used = contender.run(log, rows, folder / f"made-by-{contender.name}", arguments)
        if not used:
            raise SystemExit(f"{kind}: {contender.name}: {contender.error}")
        return used

    for kind, pair in pairs.items():
        for contender in pair:
            run(kind, contender, START_ROWS, make_log(folder, kind, START_ROWS, headed=False))
    for number in range(arguments.rounds):
        for kind, pair in pairs.items():
            for contender in pair:
                used = run(kind, contender, rows_of[kind], made[kind])
                contender.rounds.append(used)
                said = f"{used.wall:6.2f} s, cpu {used.cpu:6.2f} s, {used.peak_mib:6,.0f} MiB"
                print(f"round {number + 1}: {kind:8} {contender.name:8} {said}; load {loads()}", flush=True)
    print(f"\n{arguments.workers} workers, medians of {arguments.rounds} rounds; bold: over its target. The second peak is {RIVAL}'s.\n")
    print(HEAD + "\n|" + " --- |" * HEAD.count(" |"))
    for kind, (own, other) in pairs.items():
        print(line(kind, rows_of[kind], made[kind].stat().st_size, own.rounds, other.rounds))


if __name__ == "__main__":
    main()
