"""One case of planner.py in a process of its own: models of the benchmark, and a planner's plan of one with what it cost.

    PYTHONPATH=CHECKOUT python tools/bench/planner_case.py PLANNER MODEL CLUSTER FILE LIMIT

The planner is that of the checkout: what is imported of dmoe below has been in its place since 2026-11-28.
"""

import json
import re
import resource
import sys
import time
import warnings
from pathlib import Path
from typing import Any

from dmoe.errors import UserError

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
LARGE_BATCH = 131_072
"""Rows of the global batch for the large tables, on any cluster; for the others it is ROWS_A_RANK a rank."""
ROWS_A_RANK = 4096


def model_of(name: str) -> tuple[Sizes, str, int, int]:
    """Rows of its tables, layout, dim, experts."""
    if found := LARGE.fullmatch(name):
        many = int(found[1].replace(",", ""))
        return [10_000_000 + index * 7_919_933 % 20_000_000 for index in range(many)], "wide", 32, 2
    return MODELS[name]


def main(who: str, name: str, cluster_name: str, file: str, limit: float) -> None:
    """Plans one case; leaves the plan and what it cost in `file`."""
    from dmoe.config.config import parse_config
    from dmoe.data.progress import peak_memory_mb
    from dmoe.sharding.planner.cluster import parse_cluster
    from dmoe.sharding.planner.planning_model import describe, manifest_of
    from dmoe.train.output.log_filters import quiet

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
    told: dict[str, Any] = {"note": "", "tables": {}}
    try:
        if who == "torchrec":
            told["tables"], told["note"] = _torchrec(model, cluster, began + limit)
        else:
            plan = model.plan(cluster)
            told |= {"tables": plan["tables"], "bound_ms": plan["predicted"].get("bound_ms")}
    except UserError:
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
    from dmoe.sharding.planner.cost.lookup import Lookup, MetaTable, meta_module
    from dmoe.sharding.planner.room import RESERVED

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
        raise UserError(str(error).splitlines()[0]) from None
    (placed,) = plan.plan.values()
    batch_size = -(-model.config.train.batch_size // cluster.ranks)
    found = {table.name: placed_row(placed[table.name], table, table.mean_ids, batch_size) for table in model.tables}
    return found, f"> {seconds:.0f} s" if over else ""


if __name__ == "__main__":
    planner, model, cluster, file, limit = sys.argv[1:]
    main(planner, model, cluster, file, float(limit))
