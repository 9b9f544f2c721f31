"""dmoe's planner beside an earlier one of dmoe's and TorchRec's: CPU seconds, peak memory, the critical rank's predicted time, its bound.

Models x clusters, each planner in a process of its own, one after the other, under a limit of CPU seconds. All plans are predicted by
the same code (dmoe.sharding.planner.cost_model), from their shards alone. TorchRec's proposers are its default ones, the uniform one
first; at the limit the best plan so far is kept. A row is written as soon as it is there, and one that `--output` already has is not
run again. `--scaling` prints how dmoe's cost grows with tables and with ranks. No GPU, no process group.
"""

import argparse
import csv
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

from dmoe.errors import run_command

CRITEO_1TB = [40_000_000, 39_060, 17_295, 7_424, 20_265, 3, 7_122, 1_543, 63, 40_000_000, 3_067_956, 405_282, 10, 2_209, 11_938, 155, 4]
CRITEO_1TB += [976, 14, 40_000_000, 40_000_000, 40_000_000, 590_152, 12_973, 108, 36]
CRITEO_X4 = [1_460, 583, 1_000_000, 400_000, 305, 24, 12_000, 633, 3, 93_145, 5_683, 1_000_000, 3_194, 27, 14_992, 1_000_000, 10, 5_652]
CRITEO_X4 += [2_173, 4, 1_000_000, 18, 15, 286_181, 105, 142_572]
AVAZU = [7, 7, 4_737, 7_745, 26, 8_552, 559, 36, 2_686_408, 6_729_486, 8_251, 5, 4, 2_626, 8, 9, 435, 4, 68, 172, 60, 24, 7, 2]
POWER_LAW = [max(4, int(200_000_000 / (rank + 1) ** 2)) for rank in range(100)]


Sizes = list[int]
MODELS: dict[str, tuple[Sizes, str, int, int]] = {
    "Criteo 1TB, 4 x 128, wide": (CRITEO_1TB, "wide", 128, 4),
    "Criteo 1TB, 4 x 128, separate": (CRITEO_1TB, "separate", 128, 4),
    "Criteo 1TB, 1 x 128": (CRITEO_1TB, "wide", 128, 1),
    "Criteo x4, 3 x 16, separate": (CRITEO_X4, "separate", 16, 3),
    "Avazu, 4 x 64, wide": (AVAZU, "wide", 64, 4),
    "100 features, 2 x 64, wide": (POWER_LAW, "wide", 64, 2),
}
LARGE = re.compile(r"([\d,]+) large tables, 2 x 32, wide")
"""Any number of tables of 10 to 30 million rows, spread evenly and in no order."""
DEFAULT = [*MODELS, *(f"{many:,} large tables, 2 x 32, wide" for many in (100, 1000, 5000))]
LARGE_BATCH = 131_072
"""Rows of the global batch for the large tables, on any cluster; for the others it is ROWS_A_RANK a rank."""
CLUSTERS = ["1x8:a100-80", "16x8:h100", "128x8:h100"]
ROWS_A_RANK = 4096
GROWING = (
    [(many, "16x8:h100") for many in (125, 250, 500, 1000, 2000, 4000)],
    [(many, "128x8:h100") for many in (125, 250, 500, 1000, 2000, 4000)],
)
MORE_RANKS = [(1000, f"{nodes}x8:h100") for nodes in (16, 32, 64, 128)]
FIELDS = ["planner", "model", "cluster", "limit_s", "seconds", "mb", "ms", "bound_ms", "note"]
Row = dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="tools/bench/planner.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clusters", nargs="+", default=CLUSTERS, help=f"default {' '.join(CLUSTERS)}")
    parser.add_argument("--models", nargs="+", default=DEFAULT, help="by the beginning of their names, or 'N large tables' of any N")
    parser.add_argument("--limit", type=float, default=600.0, help="CPU seconds that a planner may take (600)")
    parser.add_argument("--planners", nargs="+", choices=("dmoe", "before", "torchrec"), default=["dmoe", "torchrec"])
    parser.add_argument("--before", metavar="CHECKOUT", help="another checkout of this repository, whose planner is 'before'")
    parser.add_argument("--scaling", action="store_true", help="dmoe alone, over tables and over ranks, and the exponents")
    parser.add_argument("--output", help="a CSV file of the rows, which a later call continues")
    parser.add_argument("--one", nargs=4, metavar=("PLANNER", "MODEL", "CLUSTER", "FILE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        planner, name, cluster, file = arguments.one
        _plan(planner, name, cluster, file, arguments.limit)
        return 0
    if "before" in arguments.planners and not arguments.before:
        parser.error("--planners before: --before names the checkout")
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


def model_of(name: str) -> tuple[Sizes, str, int, int]:
    """Rows of its tables, layout, dim, experts."""
    if found := LARGE.fullmatch(name):
        many = int(found[1].replace(",", ""))
        return [10_000_000 + index * 7_919_933 % 20_000_000 for index in range(many)], "wide", 32, 2
    return MODELS[name]


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
            command = [sys.executable, __file__, "--limit", str(self.limit), "--one", planner, name, cluster, str(file)]
            paths = [self.before] if planner == "before" and self.before else []
            environment = os.environ | {"PYTHONPATH": os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")]), "OMP_NUM_THREADS": "1"}
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
    from dmoe.sharding.planner.cost_model import predict

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


def _plan(who: str, name: str, cluster_name: str, file: str, limit: float) -> None:
    """In a process of its own: plans one case and leaves the plan and what it cost in `file`."""
    from dmoe.config import parse_config
    from dmoe.data.progress import peak_memory_mb
    from dmoe.sharding.planner.cluster import parse_cluster
    from dmoe.sharding.planner.planner import DoesNotFit
    from dmoe.sharding.planner.planning_model import describe, manifest_of
    from dmoe.train.log_filters import quiet

    quiet()
    cluster = parse_cluster(cluster_name)
    sizes, layout, dim, experts = model_of(name)
    text = (
        f"model: {{embedding: {{dim: {dim}, layout: {layout}}}, experts: [{', '.join(['mlp'] * experts)}]}}\n"
        f"train: {{batch_size: {LARGE_BATCH if LARGE.fullmatch(name) else ROWS_A_RANK * cluster.ranks}}}"
    )
    config = parse_config(text, name)
    model = describe(config, manifest_of({f"C{n + 1}": max(rows, 2) for n, rows in enumerate(sizes)}, name))
    began = time.process_time()
    # TorchRec's proposers end by themselves; what does not hand out its best plan soon after the limit is killed.
    most = int(began + limit * (1.2 if who == "torchrec" else 1)) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (most, resource.RLIM_INFINITY))
    told: Row = {"note": "", "tables": {}}
    try:
        if who == "torchrec":
            told["tables"], told["note"] = _torchrec(model, cluster, began + limit)
        else:
            plan = model.plan(cluster)
            told |= {"tables": plan["tables"], "bound_ms": plan["predicted"].get("bound_ms")}
    except DoesNotFit:
        told["note"] = "no plan"
    # Memory is the whole process's, imports included.
    told |= {"seconds": time.process_time() - began, "mb": peak_memory_mb()}
    Path(file).write_text(json.dumps(told))


def _torchrec(model: Any, cluster: Any, until: float) -> tuple[dict[str, Any], str]:
    """TorchRec's planner with the same reservation for the dense part: its plan in dmoe's words, and whether it ran into the limit.

    Args:
        until: of the process's CPU seconds, when its proposers end.
    """
    from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
    from torchrec.distributed.planner import EmbeddingShardingPlanner
    from torchrec.distributed.planner.proposers import GreedyProposer, GridSearchProposer, UniformProposer
    from torchrec.distributed.planner.storage_reservations import HeuristicalStorageReservation
    from torchrec.distributed.planner.types import PlannerError

    from dmoe.sharding.plan.job_plan import placed_row
    from dmoe.sharding.planner.cluster import topology_of
    from dmoe.sharding.planner.lookup import Lookup, MetaTable, meta_module
    from dmoe.sharding.planner.planner import RESERVED, DoesNotFit

    tables = [MetaTable(table.name, table.rows, table.columns, Lookup((table.mean_ids,))) for table in model.tables]
    # It advises to pass a dense estimate, which is passed.
    warnings.filterwarnings("ignore", "HeuristicalStorageReservation", FutureWarning)
    seconds, over = until - time.process_time(), []

    def limited(proposer: Any) -> Any:
        propose = proposer.propose

        def in_time() -> Any:
            if time.process_time() < until:
                return propose()
            over.append(proposer)
            return None

        proposer.propose = in_time
        return proposer

    planner = EmbeddingShardingPlanner(
        topology=topology_of(cluster),
        batch_size=-(-model.config.train.batch_size // cluster.ranks),
        storage_reservation=HeuristicalStorageReservation(RESERVED, dense_tensor_estimate=6 * model.dense_bytes + 1),
        proposer=[limited(one) for one in (UniformProposer(), GridSearchProposer(), GreedyProposer(), GreedyProposer(use_depth=False))],
    )
    try:
        plan = planner.plan(meta_module(tables, model.config.optimizer.tables.kind), [EmbeddingBagCollectionSharder()])
    except PlannerError as error:
        if over:
            return {}, f"> {seconds:.0f} s"
        raise DoesNotFit(str(error).splitlines()[0], 0, 0) from None
    (placed,) = plan.plan.values()
    batch_size = -(-model.config.train.batch_size // cluster.ranks)
    found = {table.name: placed_row(placed[table.name], table, table.mean_ids, batch_size) for table in model.tables}
    return found, f"> {seconds:.0f} s" if over else ""


if __name__ == "__main__":
    sys.exit(run_command("tools/bench/planner.py", main))
