"""dmoe's planner beside an earlier one of dmoe's and TorchRec's: CPU seconds, peak memory, the critical rank's predicted time, its bound.

Models x clusters, each planner in a process of its own, one after the other, under a limit of CPU seconds. All plans are predicted by
the same code (dmoe.sharding.planner.cost.cost_model), from their shards alone. TorchRec's proposers are its default ones, the uniform one
first; at the limit the best plan so far is kept. A row is written as soon as it is there, and one that `--output` already has is not
run again. `--scaling` prints how dmoe's cost grows with tables and with ranks. No GPU, no process group.
"""

import csv
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from dmoe.errors import run_command
from tools.bench.planner_case import LARGE, MODELS, model_of
from tools.bench.results import parser

HERE = Path(__file__).resolve().parent
DEFAULT = [*MODELS, *(f"{many:,} large tables, 2 x 32, wide" for many in (100, 1000, 5000))]
CLUSTERS = ["1x8:a100-80", "16x8:h100", "128x8:h100"]
GROWING = [[(many, cluster) for many in (125, 500, 1000, 2000)] for cluster in ("16x8:h100", "128x8:h100")]
MORE_RANKS = [(1000, f"{nodes}x8:h100") for nodes in (16, 32, 64, 128)]
FIELDS = ["planner", "model", "cluster", "limit_s", "seconds", "mb", "ms", "bound_ms", "note"]
Row = dict[str, Any]


def main() -> int:
    options = parser(__doc__, "python -m tools.bench.planner")
    options.add_argument("--clusters", nargs="+", default=CLUSTERS, help=f"default {' '.join(CLUSTERS)}")
    options.add_argument("--models", nargs="+", default=DEFAULT, help="by the beginning of their names, or 'N large tables' of any N")
    options.add_argument("--limit", type=float, default=600.0, help="CPU seconds that a planner may take (600)")
    options.add_argument("--planners", nargs="+", choices=("dmoe", "before", "torchrec"), default=["dmoe", "torchrec"])
    options.add_argument("--before", metavar="CHECKOUT", help="another checkout of this repository, whose planner is 'before'")
    options.add_argument("--scaling", action="store_true", help="dmoe alone, over tables and over ranks, and the exponents")
    options.add_argument("--output", help="a CSV file of the rows, which a later call continues")
    arguments = options.parse_args()
    if "before" in arguments.planners and not arguments.before:
        options.error("--planners before: --before names the checkout")
    bench = _Bench(arguments.limit, arguments.before, arguments.output)
    if arguments.scaling:
        for points in (*GROWING, MORE_RANKS):
            _print_exponents([bench.row("dmoe", large(many), cluster) for many, cluster in points])
        return 0
    names = [large(int(found[1])) for asked in arguments.models if (found := re.match(r"(\d+) large", asked.replace(",", "")))]
    names = [name for name in DEFAULT if any(name.startswith(asked) for asked in arguments.models)] + [n for n in names if n not in DEFAULT]
    worse = 0
    for name in names:
        for cluster in arguments.clusters:
            rows = [bench.row(planner, name, cluster) for planner in arguments.planners]
            times = {row["planner"]: row["ms"] for row in rows if row["ms"] is not None}
            worse += len(times) > 0 and times.get("dmoe", float("inf")) > min(times.values()) * (1 + 1e-6)
    print(f"{worse} of {len(names) * len(arguments.clusters)} cases where dmoe's critical rank is slower than another's, or it has no plan")
    return worse > 0


def large(many: int) -> str:
    return f"{many:,} large tables, 2 x 32, wide"


class _Bench:
    def __init__(self, limit: float, before: str | None, output: str | None) -> None:
        self.limit, self.before, self.output = limit, before, output
        self.rows: list[Row] = []
        if output and Path(output).exists():
            with open(output, newline="") as file:
                numbers = ("limit_s", "seconds", "mb", "ms", "bound_ms")
                self.rows = [row | {key: float(row[key]) if row[key] else None for key in numbers} for row in csv.DictReader(file)]
        print(f"{'planner':<9} {'model':<34} {'cluster':<12} {'CPU s':>8} {'MB':>7} {'ms':>10} {'bound ms':>10} {'over it':>8}  note")

    def row(self, planner: str, name: str, cluster: str) -> Row:
        """A case's row: kept from an earlier call, or measured, printed and written."""
        for row in self.rows:
            if (row["planner"], row["model"], row["cluster"]) == (planner, name, cluster):
                break
        else:
            row = {"planner": planner, "model": name, "cluster": cluster, "limit_s": self.limit} | self._told(planner, name, cluster)
            self.rows.append(row)
            if self.output:
                with open(self.output, "w", newline="") as file:
                    writer = csv.DictWriter(file, FIELDS)
                    writer.writeheader()
                    writer.writerows(self.rows)
        over = f"{row['ms'] / row['bound_ms'] - 1:.1%}" if row["ms"] and row["bound_ms"] else ""
        told = [f"{row[key]:.{digits}f}" if row[key] is not None else "-" for key, digits in _DIGITS.items()]
        print(
            "{:<9} {:<34} {:<12} {:>8} {:>7} {:>10} {:>10} {:>8}  {}".format(planner, name, cluster, *told, over, row["note"]), flush=True
        )
        return row

    def _told(self, planner: str, name: str, cluster: str) -> Row:
        nothing: Row = dict.fromkeys(_DIGITS) | {"note": ""}
        for row in self.rows:
            if row["planner"] == planner and row["note"].startswith(">") and _smaller(row, name, cluster):
                return nothing | {"note": f"not run: {row['note']} of {row['model'].split(',')[0]} on {row['cluster']}"}
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "plan.json"
            command = [sys.executable, str(HERE / "planner_case.py"), planner, name, cluster, str(file), str(self.limit)]
            checkout = self.before if planner == "before" and self.before else str(HERE.parents[1])
            environment = os.environ | {"PYTHONPATH": checkout, "OMP_NUM_THREADS": "1"}
            ended = subprocess.run(command, env=environment)
            if not file.exists():
                return nothing | {"note": f"> {self.limit:.0f} s" if ended.returncode < 0 else "failed"}
            told = json.loads(file.read_text())
        tables = told.pop("tables")
        return nothing | told | ({"ms": _critical_time(tables, cluster)} if tables else {})


def _smaller(row: Row, name: str, cluster: str) -> bool:
    """Whether a row's case is like another one, of fewer large tables, or for TorchRec's planner of fewer ranks."""
    if row["model"] == name:
        return row["planner"] == "torchrec" and int(row["cluster"].split("x")[0]) < int(cluster.split("x")[0])
    both = LARGE.fullmatch(row["model"]) and LARGE.fullmatch(name)
    return bool(both and row["cluster"] == cluster and len(model_of(row["model"])[0]) < len(model_of(name)[0]))


_DIGITS = {"seconds": 1, "mb": 0, "ms": 4, "bound_ms": 4}


def _critical_time(tables: dict[str, Any], cluster: str) -> float:
    from dmoe.sharding.planner.cluster import parse_cluster
    from dmoe.sharding.planner.cost.cost_model import predict

    return predict(tables, "adagrad", parse_cluster(cluster)).critical_time


def _print_exponents(rows: list[Row]) -> None:
    import numpy as np

    from dmoe.sharding.planner.cluster import parse_cluster

    tables = [len(model_of(row["model"])[0]) for row in rows]
    ranks = [parse_cluster(row["cluster"]).ranks for row in rows]
    what, sizes = ("tables", tables) if len(set(tables)) > 1 else ("ranks", ranks)
    for key in ("seconds", "mb"):
        slope = np.polyfit(np.log(sizes), np.log([row[key] for row in rows]), 1)[0]
        print(f"  {key} grow as {what} to the power of {slope:.2f} ({min(sizes):,} to {max(sizes):,})")


if __name__ == "__main__":
    sys.exit(run_command("tools.bench.planner", main))
