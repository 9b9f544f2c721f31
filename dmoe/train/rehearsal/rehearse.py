"""Rehearses a launch on one machine: checks plan, data and run directory, shrinks the plan to a few gloo ranks, and trains on them."""

import contextlib
import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dmoe.config.config import Config, dump_config, parse_config, setting
from dmoe.data.dataset.manifest import load_manifest
from dmoe.data.dataset.reading.reader import Reader
from dmoe.errors import UserError
from dmoe.model.budget.cost import STATES_A_NUMBER
from dmoe.sharding.plan.job_plan import refuse_other
from dmoe.sharding.plan.plan_file import as_text, check_plan
from dmoe.sharding.plan.shrink_plan import fewer_ids, shape_of, shrink
from dmoe.sharding.planner.cluster import Cluster
from dmoe.sharding.planner.planning_model import Described, describe
from dmoe.storage.paths import PATHS, join, write_text
from dmoe.train.rehearsal.local_launch import RunFailed, run_here
from dmoe.train.rehearsal.random_set import write_random_set
from dmoe.train.run.run_dir import RunDir, cannot_write
from dmoe.train.teacher import WITHOUT

ROWS_A_RANK = 32
CANNOT_SHOW = (
    "the GPUs' memory, NCCL and the network between hosts",
    "speed, and whether the plan is balanced (dmoe plan show)",
    "kernels that keep tables in the host's memory: here all are fused",
    "the data beyond each split's first batch, and whether the model learns: rows are random, the guard is off",
)
Told = Callable[[str, str], None]


def look(config: Config, plan: Mapping[str, Any], where: str, model: Described, told: Told) -> Cluster:
    """Checks what can be checked without running: plan, batch size, data set, run directory.

    Args:
        where: the plan file.
        told: called for each check with its result (`ok`, or `--` if it was skipped) and a description.

    Returns:
        The cluster of the plan.

    Raises:
        UserError: the first problem that would end the launch.
    """
    cluster = check_plan(plan, where)
    refuse_other(plan, model.tables, config, cluster, where)
    kinds = Counter(row["sharding_type"] for row in plan["tables"].values())
    told("ok", f"plan: for this model and optimizer, {cluster.name}: {', '.join(f'{n} {kind}' for kind, n in sorted(kinds.items()))}")
    if config.train.batch_size < cluster.ranks:
        raise UserError(f"train.batch_size: {config.train.batch_size} rows for {cluster.ranks} ranks; each needs a row; --set more")
    if plan["batch_size"] != config.train.batch_size:
        told("ok", f"batch: {config.train.batch_size:,} rows; the plan was made for {plan['batch_size']:,}, its times do not hold")
    _look_at_data(config, model, told)
    _look_at_run(config, told)
    return cluster


def _look_at_data(config: Config, model: Described, told: Told) -> None:
    if not config.data.path:
        told("--", "data: the config names none (data.path), so none was read")
        return
    manifest = load_manifest(config.data.path)
    rows = {}
    for split in dict.fromkeys((config.data.train_split, config.data.validation_split, config.data.test_split)):
        reader = Reader(config.data.path, manifest, split, model.blueprint.features, model.blueprint.dense, prefetch=0)
        next(reader.batches(min(config.train.batch_size, 1024), 0, 1))
        rows[split] = reader.rows
    seen = ", ".join(f"{split} {count:,}" for split, count in rows.items())
    told("ok", f"data: every shard of {config.data.path} has the model's columns, each split's first batch reads ({seen} rows)")


def _look_at_run(config: Config, told: Told) -> None:
    folder = config.run.dir
    if not folder:
        told("--", "run.dir: not given, so it was not looked at")
        return
    if RunDir(folder).holds_a_run():
        raise UserError(f"run.dir: {folder} holds a run already; add --resume to continue it, or choose another directory")
    absent = [] if "://" in folder else [path for path in (Path(folder), *Path(folder).parents) if not path.exists()]
    probe = join(folder, f"rehearsal-{os.getpid()}")
    try:
        PATHS.mkdirs(folder)
        write_text(probe, "dmoe")
        PATHS.rm(probe)
    except OSError as error:
        raise UserError(cannot_write(folder, error)) from None
    finally:
        with contextlib.suppress(OSError):
            for path in absent:
                path.rmdir()
    told("ok", f"run.dir: {folder} can be written, and holds no run yet")


def rehearse(
    config: Config, plan: Mapping[str, Any], cluster: Cluster, model: Described, ranks: int, steps: int, seconds: float, told: Told
) -> None:
    """Runs the shrunk launch: steps, validation, checkpoint, loading it, test.

    Args:
        cluster: of the plan.
        seconds: time limit of the run.

    Raises:
        UserError: the run ended with this message about a user's mistake.
        RunFailed: the run failed for another reason.
    """
    small = shape_of(cluster, ranks)
    with tempfile.TemporaryDirectory(prefix="dmoe-rehearsal-") as folder:
        shrunk, changed = _write(folder, config, plan, cluster, small, model, steps)
        told("--", f"changed for it: {changed}")
        held = f"{small.nodes} node(s) of {small.ranks_a_node} ranks"
        told("..", f"runs on {held}; a minute for a small model, more for a large one")
        began = time.perf_counter()
        run_ranks(folder, small, seconds)
        _compare(folder, shrunk, small, steps)
        told(
            "ok",
            f"run: {steps} steps on {held}, every table under its sharding type, a validation, a checkpoint, its loading and the"
            f" test; {time.perf_counter() - began:.0f} s",
        )


def _write(
    folder: str, config: Config, plan: Mapping[str, Any], cluster: Cluster, small: Cluster, model: Described, steps: int
) -> tuple[dict[str, Any], str]:
    """Writes config, plan and data of the rehearsal to a folder; returns the plan and a description of what differs from the launch."""
    kind = config.optimizer.tables.kind
    rehearsed = "adagrad" if kind == "adam" else kind
    manifest = fewer_ids(model.manifest, model.tables, small, STATES_A_NUMBER[rehearsed])
    batch_size = min(config.train.batch_size, ROWS_A_RANK * small.ranks)
    overrides = [
        setting("data.path", folder),
        setting("run.dir", f"{folder}/run"),
        setting("sharding.plan", f"{folder}/plan.json"),
        f"optimizer.tables.kind={rehearsed}",
        f"train.batch_size={batch_size}",
        f"train.eval_batch_size={batch_size}",
        "train.epochs=1",
        f"train.max_steps={steps}",
        "train.log_every=1",
        "train.early_stopping=null",
        "train.guard.enabled=false",
        *WITHOUT,
    ]
    if bf16 := config.sharding.comm_precision == "bf16":
        overrides.append("sharding.comm_precision=fp16")
    smaller = parse_config(dump_config(config), "the rehearsal", overrides)
    tables = describe(smaller, manifest).tables
    shrunk = shrink(plan, cluster, small, tables, rehearsed, batch_size)
    check_plan(shrunk, "the shrunk plan")
    splits = {config.data.validation_split: batch_size, config.data.test_split: batch_size, config.data.train_split: steps * batch_size}
    write_random_set(folder, manifest, splits)
    Path(folder, "plan.json").write_text(as_text(shrunk))
    Path(folder, "config.yaml").write_text(dump_config(smaller))
    most = max(one.cardinality for one in manifest.categorical)
    words = [f"{cluster.ranks} ranks -> {small.ranks}", f"at most {most:,} ids a feature", f"{batch_size} rows a batch, random"]
    if rehearsed != kind:
        words.append(f"tables by {rehearsed}, as CPU kernels have no {kind}")
    if bf16:
        words.append("embeddings sent in fp16, as gloo has no bf16")
    if host := sum("uvm" in row["compute_kernel"] for row in plan["tables"].values()):
        words.append(f"{host} tables of the host's memory with kernel fused")
    return shrunk, ", ".join(words)


def run_ranks(folder: str, small: Cluster, seconds: float) -> None:
    """Trains on CPUs with the config in a folder; raises the errors of `run_here`."""
    arguments = ["--config", f"{folder}/config.yaml"]
    environment = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    run_here("dmoe.train", arguments, small.nodes, small.ranks_a_node, seconds, folder, "the rehearsed run", environment)


def _compare(folder: str, shrunk: Mapping[str, Any], small: Cluster, steps: int) -> None:
    """Checks that the run used the plan, and made the expected steps on the expected ranks."""
    run = Path(folder, "run")
    used, metrics = json.loads((run / "plan.json").read_text()), json.loads((run / "metrics.json").read_text())
    if used["tables"] != shrunk["tables"]:
        raise RunFailed("the run sharded by another plan than the one that it was given")
    if metrics["steps"] != steps or metrics["world_size"] != small.ranks:
        raise RunFailed(f"the run made {metrics['steps']} steps on {metrics['world_size']} ranks, expected {steps} on {small.ranks}")
