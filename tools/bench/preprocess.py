"""The whole pipeline, raw log to training data, beside what else does it, and beside merely reading the log.

    nice python -m tools.bench.preprocess --rows 8000000 --rounds 3 --peers-venv /tmp/peers --output /tmp/bench/preprocess
    nice python -m tools.bench.preprocess --log avazu --rows 4000000 --rounds 3 --output /tmp/bench/avazu

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

Beside the others: `polars` and `polars-map`, which take tokens to ids by joins and by replace_strict (tools.bench.polars_logs). They keep
no bad lines aside and write one split; dmoe (dmoe preprocess avazu or log) writes three, and all that it does for Criteo's.

A run is a fresh process, timed from start to end; rounds are interleaved. Ratios are medians, over rounds, of a contender's time over
dmoe's in the same round: above 1, dmoe is faster. `start` is the wall time of the same on 1,000 rows (imports, Ray's start), which rules
small logs. CPU is that of the process and all that it starts. The log is dmoe's synthetic one, in the page cache. A contender that fails,
writes other than all rows or takes longer than --limit is shown as failed, not run again; one that is not installed is left out, by name.
"""

import argparse
import csv
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from tools.bench import logs
from tools.bench.peers import interpreter
from tools.bench.pipelines import DENSE, MIN_COUNT, OF_LOGS, PIPELINES, TOKENS
from tools.bench.results import announce, loads
from tools.bench.usage import Usage, measure

ROOT = Path(__file__).resolve().parents[2]
MAIN, START_ROWS = "dmoe", 1_000
COMMANDS = {"criteo": ["criteo", "--min-count", str(MIN_COUNT)], "avazu": ["avazu"]}
NEEDS = {
    "polars": "import polars",
    "polars-map": "import polars",
    "torchrec": "import torchrec.datasets.criteo",
    "fuxictr": "import fuxictr.preprocess, fuxictr.datasets.criteo",
    "pyarrow": "import pyarrow.csv",
}


@dataclass(frozen=True)
class Result:
    """A line of the table: medians; spreads are (slowest - fastest) / median."""

    contender: str
    rows: int
    wall_s: float = 0.0
    wall_spread: float = 0.0
    cpu_s: float = 0.0
    cpu_spread: float = 0.0
    rows_per_cpu_s: float = 0.0
    peak_mib: float = 0.0
    wall_ratio: float = 0.0
    cpu_ratio: float = 0.0
    start_s: float = 0.0
    rounds: int = 0
    load: float = 0.0
    error: str = ""

    def line(self) -> str:
        if self.error:
            return f"{self.contender:10} FAILED: {self.error}"
        wall = f"{self.wall_s:8.2f} s +-{self.wall_spread:4.0%}  cpu {self.cpu_s:8.2f} s +-{self.cpu_spread:4.0%}"
        ratios = f"ratio {self.wall_ratio:6.2f} (cpu {self.cpu_ratio:6.2f})" if self.wall_ratio else f"no {MAIN} to compare with"
        speed = f"{self.rows_per_cpu_s:12,.0f} rows/s per core  peak {self.peak_mib:7,.0f} MiB"
        return f"{self.contender:10} {wall} {speed}  {ratios}  start {self.start_s:5.2f} s  n={self.rounds}"


@dataclass
class Contender:
    name: str
    python: str
    rounds: list[Usage] = field(default_factory=list)
    start_seconds: float = 0.0
    error: str = ""

    def run(self, log: Path, rows: int, output: Path, arguments: argparse.Namespace) -> Usage | None:
        """One turn; None, and `error`, where it failed."""
        shutil.rmtree(output, ignore_errors=True)
        environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore", "POLARS_MAX_THREADS": str(arguments.workers)}
        kind = arguments.log
        command = [self.python, "-m", "tools.bench.pipelines", self.name, str(log), str(output), *([] if kind == "criteo" else [kind])]
        if self.name == MAIN:
            made = ["--input", str(log), "--output", str(output), "--workers", str(arguments.workers)]
            command = [self.python, "-m", "dmoe", "preprocess", *COMMANDS.get(kind, ["log", "--schema", str(log) + ".yaml"]), *made]
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

    def result(self, rows: int, main: Sequence[Usage]) -> Result:
        if self.error:
            return Result(self.name, rows, start_s=self.start_seconds, rounds=len(self.rounds), load=os.getloadavg()[0], error=self.error)
        walls, cpus = [used.wall for used in self.rounds], [used.cpu for used in self.rounds]
        wall, cpu = statistics.median(walls), statistics.median(cpus)
        pairs = list(zip(self.rounds, main, strict=False))
        return Result(
            contender=self.name,
            rows=rows,
            wall_s=wall,
            wall_spread=(max(walls) - min(walls)) / wall,
            cpu_s=cpu,
            cpu_spread=(max(cpus) - min(cpus)) / cpu,
            rows_per_cpu_s=rows / cpu,
            peak_mib=max(used.peak_mib for used in self.rounds),
            wall_ratio=statistics.median(own.wall / other.wall for own, other in pairs) if pairs else 0.0,
            cpu_ratio=statistics.median(own.cpu / other.cpu for own, other in pairs) if pairs else 0.0,
            start_s=self.start_seconds,
            rounds=len(self.rounds),
            load=os.getloadavg()[0],
        )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--log", choices=logs.KINDS, default="criteo", help="whose form the log has (criteo)")
    parser.add_argument(
        "--contenders", help=f"of {MAIN}, {', '.join(PIPELINES)}, and of other logs than Criteo's {', '.join(OF_LOGS)} (all)"
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="threads of dmoe and of polars (one a core)")
    parser.add_argument("--limit", type=float, default=3600.0, metavar="S", help="seconds that a run may take")
    parser.add_argument("--peers-venv", default="", metavar="F", help="environment with FuxiCTR, made where it is not there")
    parser.add_argument("--folder", default="", metavar="F", help="for the log and what is made of it; a log that is there is used again")
    parser.add_argument("--keep", action="store_true", help="keep what is in the folder")
    parser.add_argument("--output", default="", metavar="F", help="write F.csv")
    arguments = parser.parse_args()
    known = [MAIN, *(PIPELINES if arguments.log == "criteo" else OF_LOGS)]
    arguments.contenders = arguments.contenders or ",".join(known)
    unknown = set(arguments.contenders.split(",")) - set(known)
    if unknown or arguments.rounds < 1 or arguments.rows < START_ROWS:
        parser.error(f"no such contender: {', '.join(sorted(unknown))}" if unknown else f"at least 1 round and {START_ROWS:,} rows")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    announce()
    folder = Path(arguments.folder or tempfile.mkdtemp(prefix="dmoe-preprocess-"))
    folder.mkdir(parents=True, exist_ok=True)
    contenders = present(arguments.contenders.split(","), arguments.peers_venv)
    try:
        table = race(contenders, folder, arguments)
    finally:
        if arguments.keep:
            print(f"kept: {folder}")
        elif not arguments.folder:
            shutil.rmtree(folder)
    print(f"{arguments.rows:,} rows, {arguments.workers} workers, {arguments.rounds} rounds; load {loads()}")
    for result in table:
        print(result.line())
    if arguments.output:
        Path(arguments.output).parent.mkdir(parents=True, exist_ok=True)
        with Path(f"{arguments.output}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, [column.name for column in fields(Result)])
            writer.writeheader()
            writer.writerows(asdict(result) for result in table)


def present(names: Sequence[str], venv: str) -> list[Contender]:
    """Those whose libraries can be imported; the others are named, with the reason."""
    found = []
    for name in names:
        python = interpreter(venv) if name == "fuxictr" else sys.executable
        tried = subprocess.run([python, "-c", NEEDS.get(name, "")], capture_output=True, text=True)
        if tried.returncode:
            print(f"LEFT OUT: {name}: {(tried.stderr.strip().splitlines() or ['cannot be imported'])[-1]}; see --peers-venv", flush=True)
        else:
            found.append(Contender(name, python))
    return found


def race(contenders: Sequence[Contender], folder: Path, arguments: argparse.Namespace) -> list[Result]:
    headed = any(contender.name == "fuxictr" for contender in contenders)
    small, log = (make_log(folder, arguments.log, rows, headed) for rows in (START_ROWS, arguments.rows))
    for contender in contenders:
        used = contender.run(small, START_ROWS, folder / contender.name, arguments)
        contender.start_seconds = used.wall if used else 0.0
        if contender.error:
            print(f"FAILED on {START_ROWS:,} rows, left out: {contender.name}: {contender.error}", flush=True)
    for number in range(arguments.rounds):
        for contender in contenders:
            if contender.error:
                continue
            if used := contender.run(log, arguments.rows, folder / contender.name, arguments):
                contender.rounds.append(used)
            said = f"{used.wall:.2f} s, cpu {used.cpu:.2f} s, {used.peak_mib:,.0f} MiB" if used else f"FAILED: {contender.error}"
            print(f"round {number + 1}: {contender.name:10} {said}; load {loads()}", flush=True)
    main_rounds = next((contender.rounds for contender in contenders if contender.name == MAIN and not contender.error), [])
    return [contender.result(arguments.rows, main_rounds) for contender in contenders]


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
            out.write("\t".join(["label", *DENSE, *TOKENS]).encode() + b"\n")
            shutil.copyfileobj(file, out, 8 << 20)
        part.rename(copy)
    return log


if __name__ == "__main__":
    main()
