"""The planner of training and of `dmoe plan`: makes a plan with explanations from tables, config and cluster."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from torchrec.distributed.planner.types import Topology

from dmoe.config.config import Config
from dmoe.errors import UserError
from dmoe.model.budget.sizes import human
from dmoe.model.embedding.tables import Table
from dmoe.sharding.plan.plan_file import FORMAT, VERSION, constraints_hash, hash_of, model_hash
from dmoe.sharding.plan.qcomm import BYTES, check_precision
from dmoe.sharding.planner.cluster import Cluster, topology_of
from dmoe.sharding.planner.constraints import Rule, rules_for
from dmoe.sharding.planner.cost.cost_model import bytes_of, predict
from dmoe.sharding.planner.cost.enumerator import Candidate, alike, candidates_of
from dmoe.sharding.planner.cost.lookup import Use
from dmoe.sharding.planner.explain import reasons
from dmoe.sharding.planner.room import DoesNotFit, kept_room, room_of
from dmoe.sharding.planner.search.partitioner import Room
from dmoe.sharding.planner.search.problem import Problem, Solution
from dmoe.sharding.planner.search.search import GAP, search


@dataclass(frozen=True)
class Job:
    """Planner inputs that do not belong to a single table.

    Attributes:
        optimizer: optimizer of the tables.
        batch_size: rows of the global batch.
        dense_bytes: bytes of the data-parallel parameters; six times as much is reserved (TorchRec's rule of thumb).
        comm_precision: precision in which embeddings and their gradients are sent.
        types_given: sharding types were given for all tables; if False, tables may use host memory if device memory is insufficient.
        constraints: hash of the constraints from which the rules of the tables were made.
        variant: name of the model variant, only shown.
        gap: the search stops when the time of the critical rank is within this share of the lower bound.
        keep_best: an interrupt stops the search and keeps the best plan so far.
    """

    optimizer: str
    batch_size: int
    dense_bytes: int
    comm_precision: str = "fp32"
    types_given: bool = False
    constraints: str = ""
    variant: str = ""
    gap: float = GAP
    keep_best: bool = False


def plan_tables(
    tables: Sequence[Table],
    config: Config,
    cluster: Cluster,
    dense_bytes: int,
    explain: bool = True,
    gap: float = GAP,
    keep_best: bool = False,
    uses: Mapping[str, Use] | None = None,
) -> dict[str, Any]:
    """The plan of a config's model; see `plan_by_rules`, and `Job` for `gap` and `keep_best`.

    Args:
        uses: measured lookup statistics by feature.

    Raises:
        DoesNotFit: no plan that the config allows fits.
        UserError: an impossible constraint or comm_precision.
    """
    job = Job(
        config.optimizer.tables.kind,
        config.train.batch_size,
        dense_bytes,
        config.sharding.comm_precision,
        bool(config.sharding.types),
        constraints_hash(config),
        config.variant,
        gap,
        keep_best,
    )
    check_precision(job.comm_precision, cluster.device.kind)
    rules = rules_for(tables, config, cluster)
    for table in tables:
        # Statistics are for all ids of a feature, but private rows hold only the most frequent ids, and a hashed row holds several ids.
        if (use := (uses or {}).get(table.feature)) is not None and not table.private and not table.readers:
            rule = rules[table.name]
            rules[table.name] = replace(rule, lookup=replace(rule.lookup, use=use))
    return plan_by_rules(tables, rules, job, cluster, explain)


def plan_by_rules(tables: Sequence[Table], rules: dict[str, Rule], job: Job, cluster: Cluster, explain: bool = True) -> dict[str, Any]:
    """The plan as plain data, as `plan_file.py` writes it. Deterministic: depends only on the arguments.

    Args:
        rules: rules by table name.
        explain: try the other candidates of each table again, to report the cost of the plan with each.

    Raises:
        DoesNotFit: no plan that the rules allow fits.
    """
    topology = topology_of(cluster)
    room = room_of(tables, rules, cluster, topology, job.dense_bytes)
    problem, solution = _solve(tables, rules, job, cluster, topology, room)
    rows = _table_rows(tables, rules, problem, solution, job.optimizer)
    if explain:
        for name, why in reasons(tables, rules, problem, solution).items():
            rows[name] |= why
    plan = plan_of_rows(rows, job, cluster, room, model_hash(tables, job.optimizer))
    # Rounded down, so that it stays a lower bound.
    plan["predicted"] |= {"bound_ms": math.floor(solution.bound * 1e6) / 1e6, "complete": solution.complete}
    return plan


def plan_of_rows(rows: dict[str, dict[str, Any]], job: Job, cluster: Cluster, room: Room, model: str) -> dict[str, Any]:
    """The complete plan, with its prediction, from the entries of its tables.

    Args:
        room: memory for tables on each rank.
        model: hash of the tables.
    """
    prediction = predict(rows, job.optimizer, cluster, job.comm_precision)
    return {
        "format": FORMAT,
        "version": VERSION,
        "world_size": cluster.ranks,
        "batch_size": job.batch_size,
        "optimizer": job.optimizer,
        "comm_precision": job.comm_precision,
        "cluster": cluster.as_json(),
        "hashes": {
            "model": model,
            "topology": hash_of(cluster.as_json()),
            "constraints": job.constraints,
        },
        "model": {"tables": len(rows), "dense_bytes": job.dense_bytes, "variant": job.variant},
        "room": kept_room(room, cluster),
        "predicted": {
            "critical_rank": prediction.critical,
            "time_ms": round(prediction.critical_time, 6),
            "ranks": prediction.rank_rows(),
        },
        "tables": rows,
    }


def _solve(
    tables: Sequence[Table], rules: dict[str, Rule], job: Job, cluster: Cluster, topology: Topology, room: Room
) -> tuple[Problem, Solution]:
    least = _least_bytes(tables, rules, job)
    types = {kind for rule in rules.values() for kind in rule.types}
    if least > (memory := float(room.hbm.clip(0).sum() + room.ddr.clip(0).sum())):
        raise _does_not_fit(least, memory, types, cluster)
    # Bytes of the tables that the planner may put in host memory by itself.
    unnamed = _least_bytes([table for table in tables if not rules[table.name].kernels], rules, job)
    problem = None
    # Host memory is much slower: it is tried only if device memory is insufficient.
    places_to_try: tuple[bool, ...] = (False,)
    if cluster.device.kind == "cuda" and not job.types_given:
        # Skip device memory if it is smaller than these tables.
        places_to_try = (True,) if unnamed > float(room.hbm.clip(0).sum()) else (False, True)
    for in_host in places_to_try:
        found = candidates_of(tables, rules, job.optimizer, topology, in_host, BYTES[job.comm_precision])
        keys = list(found)
        places = {key: place for place, key in enumerate(keys)}
        if empty := [table for table in tables if not found[alike(table, rules[table.name])]]:
            rule = rules[empty[0].name]
            raise UserError(
                f"sharding.tables: table '{empty[0].name}': no kernel of {', '.join(rule.kernels or ())} runs {', '.join(rule.types)}"
                f" on {cluster.device.kind}; data_parallel has kernel dense alone, and only it"
            )
        problem = Problem(
            tuple(tuple(found[key]) for key in keys),
            tuple(places[alike(table, rules[table.name])] for table in tables),
            tuple(rules[table.name].ranks for table in tables),
            room,
        )
        if (solution := search(problem, job.gap, job.keep_best)) is not None:
            return problem, solution
    assert problem is not None
    raise _does_not_fit(*_needed(problem, cluster), types, cluster)


def _least_bytes(tables: Sequence[Table], rules: dict[str, Rule], job: Job) -> float:
    """Bytes of the weights and state of all tables, without replication or buffers."""
    sizes = [(np.array([[table.rows, table.columns]], np.float64), rules[table.name].lookup.number_bytes) for table in tables]
    return sum(float(np.sum(bytes_of(size, job.optimizer, number_bytes))) for size, number_bytes in sizes)


def _needed(problem: Problem, cluster: Cluster) -> tuple[float, float]:
    """Bytes that the smallest candidates need, and bytes available, both over the memories that the candidates can use."""
    # A table that may be in host memory uses host memory, device memory, or both.
    in_host = cluster.device.kind != "cuda" or any("uvm" in one.kernel for group in problem.candidates for one in group)
    on_device = cluster.device.kind == "cuda"

    def size(one: Candidate) -> float:
        return float(on_device * one.hbm.sum() + in_host * one.ddr.sum())

    needed = sum(min(size(one) for one in problem.candidates[kind]) for kind in problem.kinds)
    return needed, float(on_device * problem.room.hbm.clip(0).sum() + in_host * problem.room.ddr.clip(0).sum())


def _does_not_fit(needed: float, room: float, types: Collection[str], cluster: Cluster) -> DoesNotFit:
    return DoesNotFit(
        f"sharding: no plan of types {', '.join(sorted(types))} fits {cluster.name}: the tables, their optimizer's state and buffers need"
        f" at least {human(needed)} and there is room for {human(room)} over {cluster.ranks} ranks; dmoe plan explain-failure ranks what"
        " would make it fit (more ranks, fewer experts, a smaller model.embedding.dim, more sharding.types)",
        room,
        needed,
    )


def _table_rows(
    tables: Sequence[Table], rules: dict[str, Rule], problem: Problem, solution: Solution, optimizer: str
) -> dict[str, dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {}
    for table, one, ranks in zip(tables, problem.chosen(solution.picks), solution.placed.ranks, strict=True):
        rule = rules[table.name]
        whole = np.array([[table.rows, table.columns]], np.float64)
        weights, state = bytes_of(whole, optimizer, rule.lookup.number_bytes)
        shards = [
            {"row": offset[0], "column": offset[1], "rows": size[0], "columns": size[1], "rank": int(rank)}
            for size, offset, rank in zip(one.sizes.tolist(), one.offsets.tolist(), ranks, strict=True)
        ]
        rows[table.name] = {
            "size": [table.rows, table.columns],
            "feature": table.feature,
            "sharding_type": one.sharding_type,
            "compute_kernel": one.kernel,
            "weight_bytes": int(weights[0]),
            "state_bytes": int(state[0]),
            "time_ms": round(float(one.time.max()), 6),
            "pooling_factor": rule.lookup.ids_a_row,
            "batch_size": rule.batch_size,
            "shards": None if one.sharding_type == "data_parallel" else shards,
        }
        if rule.lookup.use is not None:
            rows[table.name]["use"] = asdict(rule.lookup.use)
    return rows
