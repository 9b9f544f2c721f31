"""dmoe's planner beside TorchRec's default one: CPU seconds to a plan, peak memory, the critical rank's predicted time and its lower bound.

Models x clusters, each planner in a process of its own under a time limit, one after the other for each case. Both plans are predicted
by the same code (dmoe.sharding.planner.cost_model), from their shards alone. No GPU, no process group.
"""

import argparse
import csv
import multiprocessing
import sys
import time
import warnings
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
for _many in (100, 1000, 5000):
    # Of 10 to 30 million rows, spread evenly and in no order.
    _rows = [10_000_000 + index * 7_919_933 % 20_000_000 for index in range(_many)]
    MODELS[f"{_many:,} large tables, 2 x 32, wide"] = (_rows, "wide", 32, 2)
LARGE_BATCH = 131_072
"""Rows of the global batch for the large tables, on any cluster; for the others it is ROWS_A_RANK a rank."""
CLUSTERS = ["1x8:a100-80", "16x8:h100", "128x8:h100"]
ROWS_A_RANK = 4096


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="tools/bench/planner.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clusters", nargs="+", default=CLUSTERS, help=f"default {' '.join(CLUSTERS)}")
    parser.add_argument("--models", nargs="+", default=list(MODELS), help="by the beginning of their names")
    parser.add_argument("--limit", type=float, default=240.0, help="seconds that a planner may take (240)")
    parser.add_argument("--planners", nargs="+", choices=("dmoe", "torchrec"), default=["dmoe", "torchrec"], help="both unless told")
    parser.add_argument("--output", help="a CSV file beside the table")
    arguments = parser.parse_args()
    names = [name for name in MODELS if any(name.startswith(asked) for asked in arguments.models)]
    rows = []
    print(
        f"{'model':<34} {'cluster':<12} {'dmoe s':>8} {'TorchRec s':>11} {'dmoe MB':>8} {'TorchRec MB':>12}"
        f" {'dmoe ms':>9} {'TorchRec ms':>12} {'bound ms':>9}  critical rank"
    )
    for name in names:
        for cluster in arguments.clusters:
            ours, theirs = (
                _limited(who, name, cluster, arguments.limit) if who in arguments.planners else {"note": "-"}
                for who in ("dmoe", "torchrec")
            )
            rows.append(
                {"model": name, "cluster": cluster, "limit_s": arguments.limit, **_fields("dmoe", ours), **_fields("torchrec", theirs)}
            )
            print(_line(name, cluster, ours, theirs), flush=True)
            if arguments.output:
                with open(arguments.output, "w", newline="") as file:
                    writer = csv.DictWriter(file, list(rows[0]))
                    writer.writeheader()
                    writer.writerows(rows)
    both = [row for row in rows if row["dmoe_ms"] is not None and row["torchrec_ms"] is not None]
    worse = [row for row in both if row["dmoe_ms"] > row["torchrec_ms"] * (1 + 1e-6)]
    print(f"\n{len(rows)} cases; both have a plan in {len(both)}; dmoe's critical rank is slower in {len(worse)}")
    return 0 if not worse and all(row["dmoe_ms"] is not None for row in rows if row["torchrec_ms"] is not None) else 1


def _fields(who: str, told: dict[str, Any]) -> dict[str, Any]:
    return {
        f"{who}_s": told.get("seconds"),
        f"{who}_ms": told.get("ms"),
        f"{who}_mb": told.get("mb"),
        f"{who}_bound_ms": told.get("bound"),
        f"{who}_note": told.get("note", ""),
    }


def _line(name: str, cluster: str, ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    def number(told: dict[str, Any], key: str) -> str:
        return f"{told[key]:.2f}" if told.get(key) is not None else str(told.get("note", "-"))

    verdict = ""
    if ours.get("ms") and theirs.get("ms"):
        verdict = f"{ours['ms'] / theirs['ms']:.3f} of TorchRec's"
    return (
        f"{name:<34} {cluster:<12} {number(ours, 'seconds'):>8} {number(theirs, 'seconds'):>11} {number(ours, 'mb'):>8}"
        f" {number(theirs, 'mb'):>12} {number(ours, 'ms'):>9} {number(theirs, 'ms'):>12} {number(ours, 'bound'):>9}  {verdict}"
    )


def _limited(who: str, name: str, cluster: str, limit: float) -> dict[str, Any]:
    context = multiprocessing.get_context("spawn")
    mine, its = context.Pipe()
    process = context.Process(target=_plan, args=(who, name, cluster, its))
    process.start()
    its.close()
    try:
        # The limit is for planning; imports come before.
        if not mine.poll(120) or mine.recv() != "ready":
            return {"note": "failed"}
        if not mine.poll(limit):
            return {"note": f"> {limit:.0f}"}
        return dict(mine.recv())
    except EOFError:
        return {"note": "failed"}
    finally:
        if process.is_alive():
            process.terminate()
        process.join()


def _plan(who: str, name: str, cluster_name: str, out: Any) -> None:
    from dmoe.config import parse_config
    from dmoe.data.progress import peak_memory_mb
    from dmoe.sharding.planner.cluster import parse_cluster
    from dmoe.sharding.planner.cost_model import predict
    from dmoe.sharding.planner.planner import DoesNotFit
    from dmoe.sharding.planner.planning_model import describe, manifest_of
    from dmoe.train.log_filters import quiet

    quiet()
    cluster = parse_cluster(cluster_name)
    sizes, layout, dim, experts = MODELS[name]
    text = (
        f"model: {{embedding: {{dim: {dim}, layout: {layout}}}, experts: [{', '.join(['mlp'] * experts)}]}}\n"
        f"train: {{batch_size: {LARGE_BATCH if 'large tables' in name else ROWS_A_RANK * cluster.ranks}}}"
    )
    config = parse_config(text, name)
    model = describe(config, manifest_of({f"C{n + 1}": max(rows, 2) for n, rows in enumerate(sizes)}, name))
    out.send("ready")
    began = time.process_time()
    bound = None
    try:
        if who == "dmoe":
            plan = model.plan(cluster)
            tables, bound = plan["tables"], plan["predicted"]["bound_ms"]
        else:
            tables = _torchrec(model, cluster)
    except DoesNotFit:
        out.send({"note": "no plan", "seconds": time.process_time() - began})
        return
    # The whole process's, imports included.
    told = {"seconds": time.process_time() - began, "mb": peak_memory_mb(), "bound": bound}
    out.send(told | {"ms": predict(tables, config.optimizer.tables.kind, cluster).critical_time})


def _torchrec(model: Any, cluster: Any) -> dict[str, Any]:
    """TorchRec's planner as it comes, with the same reservation for the dense part; its plan in dmoe's words."""
    from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
    from torchrec.distributed.planner import EmbeddingShardingPlanner
    from torchrec.distributed.planner.storage_reservations import HeuristicalStorageReservation
    from torchrec.distributed.planner.types import PlannerError

    from dmoe.sharding.plan.job_plan import placed_row
    from dmoe.sharding.planner.cluster import topology_of
    from dmoe.sharding.planner.lookup import Lookup, MetaTable, meta_module
    from dmoe.sharding.planner.planner import RESERVED, DoesNotFit

    tables = [MetaTable(table.name, table.rows, table.columns, Lookup((table.mean_ids,))) for table in model.tables]
    # It advises to pass a dense estimate, which is passed.
    warnings.filterwarnings("ignore", "HeuristicalStorageReservation", FutureWarning)
    planner = EmbeddingShardingPlanner(
        topology=topology_of(cluster),
        batch_size=-(-model.config.train.batch_size // cluster.ranks),
        storage_reservation=HeuristicalStorageReservation(RESERVED, dense_tensor_estimate=6 * model.dense_bytes + 1),
    )
    try:
        plan = planner.plan(meta_module(tables, model.config.optimizer.tables.kind), [EmbeddingBagCollectionSharder()])
    except PlannerError as error:
        raise DoesNotFit(str(error).splitlines()[0], 0, 0) from None
    (placed,) = plan.plan.values()
    batch_size = -(-model.config.train.batch_size // cluster.ranks)
    return {table.name: placed_row(placed[table.name], table, table.mean_ids, batch_size) for table in model.tables}


if __name__ == "__main__":
    sys.exit(run_command("tools/bench/planner.py", main))
