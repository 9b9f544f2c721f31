"""The stages `plan`, `memory` and `speed`: compare a plan, memory and step time with predictions and with the limit of the device."""

import gc
import statistics
from collections.abc import Iterator
from typing import Any

from dmoe.accept.conductor import Job
from dmoe.accept.finding import Notes
from dmoe.train.rehearsal.measure import seconds_of, synchronize

SHARE = 0.02
"""Smallest allowed speed of a step, as a share of the limit by products and memory. It is low, because a shared CPU may be slow."""
MEMORY_FACTOR, MEMORY_SLACK = 1.5, 400e6
"""The peak may be MEMORY_FACTOR * expected + MEMORY_SLACK bytes, which libraries, collective buffers and the allocator may take."""
MODEL: dict[str, Any] = {
    "embedding": {"dim": 16},
    "experts": ["crossnet", {"kind": "mlp", "hidden": [256]}, {"kind": "cin", "layer_maps": [8]}],
    "expert_dim": 32,
}


def plan(job: Job, notes: Notes) -> None:
    """The stage `plan`: makes a plan, measures its shards and bytes, and estimates the constants of the cost model."""
    told = job.ranks.run(measured, job.on_gpu)[0]
    notes.hold(not told["misplaced"], f"{len(told['misplaced'])} shards are not where the plan has them: {told['misplaced'][:1]}")
    notes.within("bytes sent beside the prediction, worst rank", told["worst_sent"], told["bound"])
    for name, (before, after) in told["constants"].items():
        notes.figure(f"{name}, assumed", before / 1e9, "GB/s")
        notes.figure(f"{name}, measured", after / 1e9, "GB/s")
    notes.figure("lookups of a step, predicted", told["lookup"][0], "ms")
    notes.figure("lookups of a step, measured", told["lookup"][1], "ms")
    notes.figure("exchange of a step, predicted", told["exchange"][0], "ms")
    notes.figure("exchange of a step, measured", told["exchange"][1], "ms")


def memory(job: Job, notes: Notes) -> None:
    """The stage `memory`: compares the memory peak of some steps with weights, states, activations and gradients by `dmoe cost`."""
    for rank, one in enumerate(job.ranks.run(peak, job.on_gpu)):
        bound = MEMORY_FACTOR * one["expected"] + MEMORY_SLACK
        notes.hold(one["peak"] <= bound, f"rank {rank} took {one['peak'] / 1e6:,.0f} MB, expected about {one['expected'] / 1e6:,.0f} MB")
        if rank == 0:
            notes.figure("peak of rank 0", one["peak"] / 1e6, "MB", f"at most {bound / 1e6:,.0f}")
            notes.figure("expected of rank 0", one["expected"] / 1e6, "MB")


def speed(job: Job, notes: Notes) -> None:
    """The stage `speed`: measures samples, FLOPs and bytes per second, and compares the step time with the limit of the device."""
    told = job.ranks.run(rates, job.on_gpu)
    slowest = max(told, key=lambda one: one["seconds"])
    notes.figure("samples a second, all ranks", sum(one["rows"] for one in told) / slowest["seconds"], "1/s")
    notes.figure("a step", slowest["seconds"] * 1e3, "ms")
    notes.figure("products a rank", slowest["flops"] / slowest["seconds"] / 1e12, "TFLOP/s")
    notes.figure("table rows a rank", slowest["bytes"] / slowest["seconds"] / 1e9, "GB/s")
    notes.figure("the limit of a step: products and rows alone", slowest["limit"] * 1e3, "ms")
    notes.at_least("share of the limit that is reached", slowest["limit"] / slowest["seconds"], SHARE)


def session_of(on_gpu: bool, rows: int, batch: int) -> tuple[Any, Any]:
    """Opens a session of a test model; also returns endless random batches for this rank.

    Args:
        rows: number of rows of each of the eight tables.
        batch: number of rows in the batch of a rank.
    """
    from dmoe import distributed
    from dmoe.config.config import Config
    from dmoe.model.dmoe import manifest_of
    from dmoe.train.session import open_session

    features = {f"C{number}": rows for number in range(1, 9)}
    tree = {"model": MODEL, "correlation": {"alpha": 0.01}, "train": {"batch_size": batch * distributed.world_size()}}
    config = Config.model_validate(tree)
    session = open_session(config, manifest_of(features, ["I1", "I2"]), distributed.device_of_this_rank())
    session.sharded.train()
    return session, batches(list(features), rows, batch, on_gpu)


def batches(names: list[str], rows: int, batch: int, pin: bool) -> Iterator[Any]:
    """Yields random batches without end; small ids are more frequent."""
    import torch
    from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

    from dmoe import distributed
    from dmoe.data.dataset.batch import Batch

    generator = torch.Generator().manual_seed(distributed.rank())
    made = []
    for _ in range(3):
        ids = (torch.rand(len(names) * batch, generator=generator).pow(3) * rows).long().clamp(max=rows - 1)
        parts = torch.randn(batch, 2, generator=generator), ids, (torch.rand(batch, generator=generator) < 0.3).float()
        made.append(parts)
    while True:
        for dense, ids, label in made:
            sparse = KeyedJaggedTensor(names, ids, lengths=torch.ones(len(ids), dtype=torch.int32), stride=batch)
            one = Batch(dense, sparse, label)
            yield one.pin_memory() if pin else one


def sizes(on_gpu: bool) -> tuple[int, int]:
    """Numbers of rows of a table and of a rank's batch."""
    return (1_000_000, 8192) if on_gpu else (20_000, 512)


def measured(on_gpu: bool) -> dict[str, Any]:
    """Measures the plan of this job, and compares predictions with measurements."""
    import dataclasses

    from dmoe.sharding.planner.cost.calibrate import SENT_BOUND, compare
    from dmoe.train.rehearsal.measure import measure_all, resident_bytes

    started = resident_bytes()
    session, stream = session_of(on_gpu, *sizes(on_gpu))
    found = compare(measure_all(session, 8, started, stream), "the plan")
    before, after = (dataclasses.asdict(one) for one in (found.figures.cluster.device, found.cluster.device))
    return {
        "misplaced": list(found.misplaced),
        "worst_sent": found.worst_sent,
        "bound": SENT_BOUND,
        "constants": {key: (before[key], after[key]) for key in before if isinstance(before[key], float) and before[key] != after[key]},
        "lookup": [max(rank.lookup[index] for rank in found.ranks) for index in (0, 1)],
        "exchange": [max(rank.exchange[index] for rank in found.ranks) for index in (0, 1)],
    }


def peak(on_gpu: bool) -> dict[str, float]:
    """Measured and expected memory peak of this rank over some steps, in bytes."""
    import torch

    from dmoe import distributed
    from dmoe.model.budget.cost import cost_of
    from dmoe.train.rehearsal.collective_bytes import bytes_of
    from dmoe.train.rehearsal.measure import resident_bytes

    gc.collect()
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    # On a CPU, tables are larger, so that they are not lost in the memory of libraries.
    rows, batch = sizes(on_gpu) if on_gpu else (200_000, 512)
    started = torch.cuda.memory_allocated() if on_gpu else resident_bytes()
    session, stream = session_of(on_gpu, rows, batch)
    for _ in range(4):
        session.pipeline.progress(stream)
    synchronize(session.device)
    now = torch.cuda.max_memory_allocated() if on_gpu else resident_bytes()
    from dmoe.sharding.plan.local_shards import local_shards

    held = 0
    for shard in local_shards(session.sharded, session.tables):
        held += bytes_of(shard.weight) + sum(bytes_of(state) for state in session.optimizers.states_of(shard).values())
    cost = cost_of(session.config, session.manifest)
    ranks = distributed.world_size()
    dense = cost.training_bytes(0, ranks) - (cost.embedding_bytes + cost.table_state_bytes) / ranks
    # The pipeline of TorchRec holds three batches, with ids and their embeddings, forward and backward.
    return {"peak": now - started, "expected": held + dense + cost.activation_bytes * batch}


def rates(on_gpu: bool) -> dict[str, float]:
    """Seconds of a step on this rank, its work, and the seconds that only its matrix products and table rows would take."""
    import torch

    from dmoe.accept.stages.products import Recorder, Replay

    rows, batch = sizes(on_gpu)
    session, stream = session_of(on_gpu, rows, batch)
    for _ in range(3):
        session.pipeline.progress(stream)
    with Recorder() as recorder:
        session.pipeline.progress(stream)
    taken = [seconds_of(lambda: session.pipeline.progress(stream), session.device) for _ in range(8)]
    replay = Replay(recorder.products, session.device)
    replay.run()
    products = min(seconds_of(replay.run, session.device) for _ in range(3))
    columns = sum(table.columns for table in session.tables)
    # The forward pass reads a row; the optimizer reads and writes the row and its state.
    moved = 5 * batch * columns * 4
    source = torch.zeros(max(moved // 8, 1), device=session.device)
    target = torch.zeros_like(source)
    copied = min(seconds_of(lambda: target.copy_(source), session.device) for _ in range(5))
    return {
        "seconds": statistics.median(taken),
        "rows": batch,
        "flops": replay.flops,
        "bytes": moved,
        "limit": products + copied,
    }
