"""The whole pipeline, raw log to training data, beside what else does it, and beside merely reading the log.

    nice python -m tools.bench.preprocess --rows 8000000 --peers-venv /tmp/peers --output /tmp/bench/preprocess
    nice python -m tools.bench.preprocess --log criteo avazu quoted parquet --contenders dmoe polars --criteo-rows 8000000 --rows 4000000

The logs: criteo; avazu (string tokens); quoted (CSV with quotes, bags, floats, a weight); parquet (the quoted one's rows). Beside Criteo's:

dmoe      dmoe preprocess criteo: a strict grammar, bad lines kept aside; dense log; ids of 26 features and 13 buckets, counted over
          the train split; three splits in zstd parquet, checksums, a manifest; can be killed and continued.
polars    Text to typed parquet once, counts, ids by count, joins over that; dense log; the vocabularies and one zstd-1 parquet, of all rows
          in one split. No buckets, bad lines kept aside (a long or ill-typed one fails the run, a short one is filled), checksums, restart.
torchrec  BinaryCriteoUtils.tsv_to_npys, then sparse_to_contiguous: all rows in memory; dense log; ids by first occurrence; npy, not
          compressed. No buckets, splits, kept vocabulary, bad lines kept aside (an ill-typed or short one fails the run, a long one is
          cut), checksums, restart.
fuxictr   Its Criteo processor and build_dataset on one file with a header: ids of 26 features and 13 buckets; a vocabulary, one parquet of
          all rows in one split. No dense values, bad lines, checksums, restart.
pyarrow   Reads the log in blocks as typed columns, and drops them: nothing else.
scan      Reads the log in blocks and counts newlines: nothing else.

Beside any log: `polars` and `polars-map`, which take tokens to ids by joins and by replace_strict (tools.bench.polars_logs). They keep
no bad lines aside and write one split; dmoe (dmoe preprocess avazu or log) writes three, and all that it does for Criteo's.

A run is a fresh process, timed from start to end; rounds are interleaved. Ratios are medians, over rounds, of a contender's time over
dmoe's in the same round: above 1, dmoe is faster. `start` is the wall time of the same on 1,000 rows (imports, Ray's start), which rules
small logs; it also compiles dmoe's kernels. CPU is that of the process and all that it starts. The logs are made, and in the page cache. A
contender that fails, writes other than all rows or takes longer than --limit is shown as failed, not run again; one that is not installed
is left out, by name. Where dmoe and polars took part, a table for docs/data.md ends the output: dmoe over polars, against the targets.
With the second command: about 12 minutes on two idle cores, 4 GB of logs.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from dmoe.testing.criteo import FIELDS
from tools.bench import logs
from tools.bench.contest import ratio
from tools.bench.peers import interpreter, reason
from tools.bench.pipelines import MIN_COUNT, OF_CRITEO, POLARS
from tools.bench.results import announce, loads, save
from tools.bench.usage import Usage, measure

ROOT = Path(__file__).resolve().parents[2]
MAIN, RIVAL, START_ROWS = "dmoe", "polars", 1_000
COMMANDS = {"criteo": ["criteo", "--min-count", str(MIN_COUNT)], "avazu": ["avazu"]}
NEEDS = {
    "polars": "import polars",
    "polars-map": "import polars",
    "torchrec": "import torchrec.datasets.criteo",
    "fuxictr": "import fuxictr.preprocess, fuxictr.datasets.criteo",
    "pyarrow": "import pyarrow.csv",
}
NAMES = {"criteo": "Criteo", "avazu": "Avazu's form", "quoted": "quoted CSV, bags, floats", "parquet": "the same as parquet"}
TARGETS = {"criteo": (0.42, 0.40, 450), "avazu": (0.60, 0.75, 700), "quoted": (0.75, 0.85, 700), "parquet": (0.75, 0.85, 700)}
"""Of dmoe over Polars: wall, CPU; and dmoe's peak in MiB."""
HEAD = f"| log | rows | size | wall, s: dmoe, {RIVAL} | ratio (target) | CPU, s | ratio (target) | peak, MiB (target) |"


@dataclass(frozen=True)
class Result:
    """A line of the table: medians; spreads are (slowest - fastest) / median. Of a contender that failed, all but the names is 0."""

    log: str
    contender: str
    rows: int
    error: str
    start_s: float
    rounds: int
    load: float
    wall_s: float = 0.0
    wall_spread: float = 0.0
    cpu_s: float = 0.0
    cpu_spread: float = 0.0
    rows_per_cpu_s: float = 0.0
    peak_mib: float = 0.0
    wall_ratio: float = 0.0
    cpu_ratio: float = 0.0

    def line(self) -> str:
        if self.error:
            return f"{self.log:8} {self.contender:10} FAILED: {self.error}"
        wall = f"{self.wall_s:8.2f} s +-{self.wall_spread:4.0%}  cpu {self.cpu_s:8.2f} s +-{self.cpu_spread:4.0%}"
        speed = f"{self.rows_per_cpu_s:12,.0f} rows/s per core  peak {self.peak_mib:7,.0f} MiB"
        ratios = f"ratio {self.wall_ratio:6.2f} (cpu {self.cpu_ratio:6.2f})  start {self.start_s:5.2f} s  n={self.rounds}"
        return f"{self.log:8} {self.contender:10} {wall} {speed}  {ratios}"


@dataclass
class Contender:
    """A pipeline on one log."""

    name: str
    kind: str
    log: Path
    rows: int
    python: str = sys.executable
    rounds: list[Usage] = field(default_factory=list)
    start_seconds: float = 0.0
    error: str = ""

    def run(self, log: Path, rows: int, output: Path, arguments: argparse.Namespace) -> Usage | None:
        """One turn; None, and `error`, where it failed."""
        shutil.rmtree(output, ignore_errors=True)
        environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore", "POLARS_MAX_THREADS": str(arguments.workers)}
        command = [self.python, "-m", "tools.bench.pipelines", self.name, self.kind, str(log), str(output)]
        if self.name == MAIN:
            made = ["--input", str(log), "--output", str(output), "--workers", str(arguments.workers)]
            command = [self.python, "-m", "dmoe", "preprocess", *COMMANDS.get(self.kind, ["log", "--schema", f"{log}.yaml"]), *made]
        else:
            output.mkdir(parents=True)
        used = measure(command, ROOT, environment, arguments.limit)
        self.error = used.error
        if not self.error and (wrote := self._wrote(used, output)) != rows:
            self.error = f"{wrote:,} rows of {rows:,}"
        if not arguments.keep:
            shutil.rmtree(output, ignore_errors=True)
        return None if self.error else used

    def _wrote(self, used: Usage, output: Path) -> int:
        if self.name != MAIN:
            return int(used.output.split()[-1])
        splits = json.loads((output / "manifest.json").read_text())["splits"]
        return sum(split["rows"] for split in splits.values())

    def result(self, main: Sequence[Usage]) -> Result:
        known = Result(self.kind, self.name, self.rows, self.error, self.start_seconds, len(self.rounds), os.getloadavg()[0])
        if self.error:
            return known
        walls, cpus = [used.wall for used in self.rounds], [used.cpu for used in self.rounds]
        wall, cpu = statistics.median(walls), statistics.median(cpus)
        return replace(
            known,
            wall_s=wall,
            wall_spread=(max(walls) - min(walls)) / wall,
            cpu_s=cpu,
            cpu_spread=(max(cpus) - min(cpus)) / cpu,
            rows_per_cpu_s=self.rows / cpu,
            peak_mib=max(used.peak_mib for used in self.rounds),
            wall_ratio=ratio(walls, [used.wall for used in main]),
            cpu_ratio=ratio(cpus, [used.cpu for used in main]),
        )


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


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--log", nargs="+", choices=logs.KINDS, default=["criteo"], help="whose form the logs have (criteo)")
    parser.add_argument("--rows", type=int, default=1_000_000, help="of a log (1,000,000)")
    parser.add_argument("--criteo-rows", type=int, metavar="ROWS", help="of the log in Criteo's form (as the others)")
    parser.add_argument("--rounds", type=int, default=3)
    names = (MAIN, *POLARS, *OF_CRITEO)
    parser.add_argument("--contenders", nargs="+", choices=names, help="all, and of other logs than Criteo's the first three")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="threads of dmoe and of polars (one a core)")
    parser.add_argument("--limit", type=float, default=3600.0, metavar="S", help="seconds that a run may take")
    parser.add_argument("--peers-venv", default="", metavar="F", help="environment with FuxiCTR, made where it is not there")
    parser.add_argument("--folder", default="", metavar="F", help="for the logs and the data sets; a log that is there is used again")
    parser.add_argument("--keep", action="store_true", help="keep what is in the folder")
    parser.add_argument("--output", default="", metavar="F", help="write F.csv")
    arguments = parser.parse_args()
    arguments.criteo_rows = arguments.criteo_rows or arguments.rows
    if arguments.rounds < 1 or min(arguments.rows, arguments.criteo_rows) < START_ROWS:
        parser.error(f"at least 1 round and {START_ROWS:,} rows")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    announce()
    folder = Path(arguments.folder or tempfile.mkdtemp(prefix="dmoe-preprocess-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        contenders = present(folder, arguments)
        race(contenders, folder, arguments)
        tell(contenders, arguments)
    finally:
        if arguments.keep:
            print(f"kept: {folder}")
        elif not arguments.folder:
            shutil.rmtree(folder)


def present(folder: Path, arguments: argparse.Namespace) -> list[Contender]:
    """Those whose libraries can be imported, with their logs; the others are named, with the reason."""
    found = []
    for kind in arguments.log:
        possible = (MAIN, *POLARS, *(OF_CRITEO if kind == "criteo" else ()))
        names = [name for name in arguments.contenders or possible if name in possible]
        log = make_log(folder, kind, arguments.criteo_rows if kind == "criteo" else arguments.rows, "fuxictr" in names)
        for name in names:
            python = interpreter(arguments.peers_venv) if name == "fuxictr" else sys.executable
            if why := reason(python, NEEDS.get(name, "")):
                print(f"LEFT OUT: {name}: {why}", flush=True)
            else:
                found.append(Contender(name, kind, log, arguments.criteo_rows if kind == "criteo" else arguments.rows, python))
    return found


def race(contenders: Sequence[Contender], folder: Path, arguments: argparse.Namespace) -> None:
    for one in contenders:
        small = make_log(folder, one.kind, START_ROWS, one.name == "fuxictr")
        used = one.run(small, START_ROWS, folder / f"made-by-{one.name}", arguments)
        one.start_seconds = used.wall if used else 0.0
        if one.error:
            print(f"FAILED on {START_ROWS:,} rows, left out: {one.name}: {one.error}", flush=True)
    for number in range(arguments.rounds):
        for one in [one for one in contenders if not one.error]:
            if used := one.run(one.log, one.rows, folder / f"made-by-{one.name}", arguments):
                one.rounds.append(used)
            said = f"{used.wall:.2f} s, cpu {used.cpu:.2f} s, {used.peak_mib:,.0f} MiB" if used else f"FAILED: {one.error}"
            print(f"round {number + 1}: {one.kind:8} {one.name:10} {said}; load {loads()}", flush=True)


def tell(contenders: Sequence[Contender], arguments: argparse.Namespace) -> None:
    print(f"{arguments.workers} workers, {arguments.rounds} rounds; load {loads()}")
    sound = {(one.kind, one.name): one for one in contenders if not one.error}
    results = [one.result(sound[one.kind, MAIN].rounds if (one.kind, MAIN) in sound else []) for one in contenders]
    print(*(result.line() for result in results), sep="\n")
    if arguments.output and results:
        save(results, f"{arguments.output}.csv")
    if compared := [kind for kind in arguments.log if {(kind, MAIN), (kind, RIVAL)} <= sound.keys()]:
        print(f"\nMedians of {arguments.rounds} rounds; bold: over its target. The second peak is {RIVAL}'s.\n")
        print(HEAD + "\n|" + " --- |" * HEAD.count(" |"))
    for kind in compared:
        own, other = sound[kind, MAIN], sound[kind, RIVAL]
        print(line(kind, own.rows, own.log.stat().st_size, own.rounds, other.rounds))


def make_log(folder: Path, kind: str, rows: int, headed: bool) -> Path:
    """The log, with its schema in LOG.yaml where it has one, and with `headed` its copy LOG.csv that begins with the columns' names."""
    log = folder / f"{kind}-{rows}"
    copy = Path(f"{log}.csv")
    logs.make(kind, rows, 0, log)
    if kind in ("quoted", "parquet"):
        schema = logs.QUOTED | ({"format": "parquet"} if kind == "parquet" else {})
        Path(f"{log}.yaml").write_text(json.dumps(schema))
    if headed and not copy.exists():
        part = copy.with_suffix(".part")
        with part.open("wb") as out, log.open("rb") as file:
            out.write("\t".join(FIELDS).encode() + b"\n")
            shutil.copyfileobj(file, out, 8 << 20)
        part.rename(copy)
    return log


if __name__ == "__main__":
    main()
