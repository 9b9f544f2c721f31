"""The whole pipeline, raw log to training data, beside a Polars pipeline.

    nice python -m tools.bench.preprocess --log criteo avazu quoted parquet --criteo-rows 8000000 --rows 4000000

The logs: criteo; avazu (string tokens); quoted (CSV with quotes, bags, floats, a weight); parquet (the quoted one's rows).

dmoe      dmoe preprocess criteo, avazu or log: a strict grammar, bad lines kept aside; dense log; ids (of Criteo's log 26 features and 13
          buckets), counted over the train split; three splits in zstd parquet, checksums, a manifest; can be killed and continued.
polars    Text to typed parquet once, counts, ids by count, joins over that; dense log; the vocabularies and one zstd-1 parquet, of all rows
          in one split. No buckets, bad lines kept aside (a long or ill-typed one fails the run, a short one is filled), checksums, restart.
          `polars-map` takes tokens to ids by replace_strict in place of joins: faster, in more memory (tools.bench.polars_logs).

A run is a fresh process, timed from start to end; rounds are interleaved. Ratios are medians, over rounds, of dmoe's time over the other's
in the same round: below 1, dmoe is faster. A first, untimed run of each on 1,000 rows compiles dmoe's kernels. CPU is that of the process
and all that it starts. The logs are made, and in the page cache. A contender that fails, writes other than all rows or takes longer than
--limit is shown as failed, not run again. The table at the end is that of docs/data.md. As above: about 12 minutes on two idle cores, 4 GB.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tools.bench import logs, polars_logs
from tools.bench.results import ROOT, announce, loads, parser, ratio
from tools.bench.usage import Usage, measure

MAIN, START_ROWS = "dmoe", 1_000
COMMANDS = {"criteo": ["criteo", "--min-count", str(polars_logs.LOGS["criteo"])], "avazu": ["avazu"]}
NAMES = {"criteo": "Criteo", "avazu": "Avazu's form", "quoted": "quoted CSV, bags, floats", "parquet": "the same as parquet"}
TARGETS = {"criteo": (0.42, 0.40, 450), "avazu": (0.60, 0.75, 700), "quoted": (0.75, 0.85, 700), "parquet": (0.75, 0.85, 700)}
"""Of dmoe over Polars: wall, CPU; and dmoe's peak in MiB."""
HEAD = "| log | rows | size | wall, s: dmoe, {} | ratio (target) | CPU, s | ratio (target) | peak, MiB (target) |"


@dataclass
class Contender:
    """A pipeline on one log."""

    name: str
    kind: str
    log: Path
    rows: int
    rounds: list[Usage] = field(default_factory=list)
    error: str = ""

    def run(self, log: Path, rows: int, output: Path, arguments: argparse.Namespace) -> Usage | None:
        """One turn; None, and `error`, where it failed."""
        shutil.rmtree(output, ignore_errors=True)
        environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore", "POLARS_MAX_THREADS": str(arguments.workers)}
        command = [sys.executable, "-m", "tools.bench.polars_logs", self.name, self.kind, str(log), str(output)]
        if self.name == MAIN:
            made = ["--input", str(log), "--output", str(output), "--workers", str(arguments.workers)]
            command = [sys.executable, "-m", "dmoe", "preprocess", *COMMANDS.get(self.kind, ["log", "--schema", f"{log}.yaml"]), *made]
        else:
            output.mkdir(parents=True)
        used = measure(command, ROOT, environment, arguments.limit)
        self.error = used.error
        if not self.error and (wrote := self._wrote(used, output)) != rows:
            self.error = f"{wrote:,} rows of {rows:,}"
        shutil.rmtree(output, ignore_errors=True)
        return None if self.error else used

    def _wrote(self, used: Usage, output: Path) -> int:
        if self.name != MAIN:
            return int(used.output.split()[-1])
        splits = json.loads((output / "manifest.json").read_text())["splits"]
        return sum(split["rows"] for split in splits.values())


def line(kind: str, rows: int, size: int, own: Sequence[Usage], others: Sequence[Usage]) -> str:
    """A log's row of the table for docs/data.md; a ratio or peak that misses its target is in bold type."""

    def marked(text: str, met: bool) -> str:
        return text if met else f"**{text}**"

    cells = [NAMES[kind], f"{rows:,}", f"{size / 1e9:.2f} GB"]
    for what, target in zip(("wall", "cpu"), TARGETS[kind], strict=False):
        mine, their = ([getattr(used, what) for used in rounds] for rounds in (own, others))
        cells.append(f"{statistics.median(mine):.1f}, {statistics.median(their):.1f}")
        cells.append(marked(f"{ratio(mine, their):.2f}", ratio(mine, their) <= target) + f" ({target:.2f})")
    peak, limit = max(used.peak_mib for used in own), TARGETS[kind][2]
    cells.append(marked(f"{peak:,.0f}", peak <= limit) + f" ({limit}), {max(used.peak_mib for used in others):,.0f}")
    return f"| {' | '.join(cells)} |"


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--log", nargs="+", choices=logs.KINDS, default=["criteo"], help="whose form the logs have (criteo)")
    options.add_argument("--rows", type=int, default=1_000_000, help="of a log (1,000,000)")
    options.add_argument("--criteo-rows", type=int, metavar="ROWS", help="of the log in Criteo's form (as the others)")
    options.add_argument("--rounds", type=int, default=3)
    names = (MAIN, *polars_logs.IDS)
    options.add_argument("--contenders", nargs="+", choices=names, default=names[:2], help="dmoe polars")
    options.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="threads of dmoe and of polars (one a core)")
    options.add_argument("--limit", type=float, default=3600.0, metavar="S", help="seconds that a run may take")
    options.add_argument("--folder", default="", metavar="F", help="for the logs and the data sets; a log that is there is used again")
    arguments = options.parse_args()
    arguments.criteo_rows = arguments.criteo_rows or arguments.rows
    if arguments.rounds < 1 or min(arguments.rows, arguments.criteo_rows) < START_ROWS:
        options.error(f"at least 1 round and {START_ROWS:,} rows")
    announce()
    folder = Path(arguments.folder or tempfile.mkdtemp(prefix="dmoe-preprocess-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        race(folder, arguments)
    finally:
        if not arguments.folder:
            shutil.rmtree(folder)


def race(folder: Path, arguments: argparse.Namespace) -> None:
    contenders, made = [], folder / "made"
    for kind in arguments.log:
        rows = arguments.criteo_rows if kind == "criteo" else arguments.rows
        contenders += [Contender(name, kind, make_log(folder, kind, rows), rows) for name in arguments.contenders]
    for one in contenders:
        one.run(make_log(folder, one.kind, START_ROWS), START_ROWS, made, arguments)
    for number in range(arguments.rounds):
        for one in [one for one in contenders if not one.error]:
            if used := one.run(one.log, one.rows, made, arguments):
                one.rounds.append(used)
                said = f"{used.wall:.2f} s, cpu {used.cpu:.2f} s, {used.peak_mib:,.0f} MiB"
                print(f"round {number + 1}: {one.kind:8} {one.name:10} {said}; load {loads()}", flush=True)
    for one in contenders:
        if one.error:
            print(f"FAILED: {one.kind} {one.name}: {one.error}")
    sound = {(one.kind, one.name): one for one in contenders if not one.error}
    for rival in [name for name in arguments.contenders if name != MAIN]:
        print(f"\nMedians of {arguments.rounds} rounds; bold: over its target. The second peak is {rival}'s.\n")
        print(HEAD.format(rival) + "\n|" + " --- |" * HEAD.count(" |"))
        for kind in arguments.log:
            if (own := sound.get((kind, MAIN))) and (other := sound.get((kind, rival))):
                print(line(kind, own.rows, own.log.stat().st_size, own.rounds, other.rounds))


def make_log(folder: Path, kind: str, rows: int) -> Path:
    """The log, with its schema in LOG.yaml where it has one."""
    log = folder / f"{kind}-{rows}"
    logs.make(kind, rows, 0, log)
    if kind in ("quoted", "parquet"):
        schema = logs.QUOTED | ({"format": "parquet"} if kind == "parquet" else {})
        Path(f"{log}.yaml").write_text(json.dumps(schema))
    return log


if __name__ == "__main__":
    main()
