"""Measures a few steps of a run under its plan: `torchrun -m dmoe.train.rehearsal.measure --config X.yaml --output measured.json`.

For each rank: the memory of its tables, the bytes that it sends, the time of steps and lookups, and the time of collectives of this size.
It trains like `dmoe.train`, but writes no checkpoint. `dmoe plan calibrate` starts it, and compares the results with the cost model.
"""

import argparse
import itertools
import re
import statistics
import sys
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any

WARM_UP = 4
FORWARD, BACKWARD = re.compile(r"^fbgemm::\w*embedding_codegen_lookup\w*"), re.compile(r"^torch::autograd::CppNode<.*LookupFunction")
"""Names of FBGEMM's operators on a CPU. On a GPU, the kernels that they launch are measured, by the names below."""
KERNEL, KERNEL_BACKWARD = re.compile(r"embedding.*(forward|lookup)", re.I), re.compile(r"embedding.*backward|backward.*embedding", re.I)


def measure_all(session: Any, steps: int, started_bytes: int, batches: Any = None) -> dict[str, Any]:
    """What `measure` finds on every rank, as `dmoe.sharding.planner.cost.calibrate` reads it. Every rank must call it."""
    import torch.distributed as dist

    from dmoe import distributed
    from dmoe.sharding.planner.cost.calibrate import FORMAT, VERSION

    parts: list[Any] = [None] * distributed.world_size()
    dist.all_gather_object(parts, measure(session, steps, started_bytes, batches))
    return {"format": FORMAT, "version": VERSION, "device": session.device.type, "steps": steps, "plan": session.plan, "ranks": parts}


def measure(session: Any, steps: int, started_bytes: int, batches: Any = None) -> dict[str, Any]:
    """Measures this rank: first `steps` timed steps, then a few more with counters and the profiler.

    Args:
        started_bytes: `resident_bytes` of the process before the model was built.
        batches: an endless generator of batches; those of the config's training split if None.
    """
    import torch

    from dmoe import distributed
    from dmoe.train.rehearsal.collective_bytes import SentBytes

    batches = _batches(session) if batches is None else batches
    session.sharded.train()
    for _ in range(WARM_UP):
        session.pipeline.progress(batches)
    taken = [1000 * seconds_of(lambda: session.pipeline.progress(batches), session.device) for _ in range(steps)]
    counted = min(steps, 4)
    with SentBytes() as counter:
        for _ in range(counted):
            session.pipeline.progress(batches)
    sent = {kind: count / counted for kind, count in sorted(counter.sent.items())}
    forward, backward = _lookups(session, batches, counted)
    batches.close()
    on_gpu = session.device.type == "cuda"
    peak = torch.cuda.max_memory_allocated() if on_gpu else resident_bytes(peak=True) - started_bytes
    return {
        "rank": distributed.rank(),
        "shards": _shards(session),
        "sent": sent,
        "step_ms": statistics.median(taken),
        "forward_lookup_ms": forward,
        "backward_lookup_ms": backward,
        "exchange_ms": _exchange(sent, session.device),
        "peak_bytes": peak,
    }


def _batches(session: Any) -> Generator[Any, None, None]:
    """Yields full batches, epoch after epoch."""
    from dmoe import distributed
    from dmoe.errors import UserError

    reader, size = session.reader(session.config.data.train_split, shuffled=True), session.config.train.batch_size
    whole = reader.rows // size
    if whole < 1:
        raise UserError(f"train.batch_size: {size:,}, but the split has {reader.rows:,} rows; --set a smaller one to measure with")
    for epoch in itertools.count():
        yield from reader.batches(size, distributed.rank(), distributed.world_size(), epoch, 0, whole)


def seconds_of(call: Callable[[], Any], device: Any) -> float:
    """Seconds of a call, with the work of the device."""
    synchronize(device)
    began = time.perf_counter()
    call()
    synchronize(device)
    return time.perf_counter() - began


def synchronize(device: Any) -> None:
    """Waits until a GPU has finished its work; does nothing for a CPU."""
    if device.type == "cuda":
        import torch

        torch.cuda.synchronize(device)


def _lookups(session: Any, batches: Iterator[Any], steps: int) -> tuple[float, float]:
    """Milliseconds of a step in the table lookups, by torch's profiler: (forward, backward with the optimizer)."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    on_gpu = session.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities, acc_events=True) as recorded:
        for _ in range(steps):
            session.pipeline.progress(batches)
        if on_gpu:
            torch.cuda.synchronize()
    events = [one for one in recorded.events() if (one.device_type == torch.autograd.DeviceType.CUDA) == on_gpu]
    backward = [one for one in events if (KERNEL_BACKWARD if on_gpu else BACKWARD).search(one.name)]
    told = {id(one) for one in backward}
    forward = [one for one in events if (KERNEL if on_gpu else FORWARD).search(one.name) and id(one) not in told]
    return _union(forward) / steps, _union(backward) / steps


def _union(events: list[Any]) -> float:
    """Milliseconds that are covered by events. Overlapping events count once."""
    total, until = 0.0, float("-inf")
    for start, end in sorted((one.time_range.start, one.time_range.end) for one in events):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total / 1000


def _shards(session: Any) -> list[dict[str, Any]]:
    """The table shards of this rank, with the bytes of their tensors."""
    from dmoe.sharding.plan.local_shards import local_shards
    from dmoe.train.rehearsal.collective_bytes import bytes_of

    return [
        {
            "table": shard.table.name,
            "row": int(shard.row),
            "column": int(shard.column),
            "rows": int(shard.weight.shape[0]),
            "columns": int(shard.weight.shape[1]),
            "weights": bytes_of(shard.weight),
            "state": sum(bytes_of(state) for state in session.optimizers.states_of(shard).values()),
        }
        for shard in local_shards(session.sharded, session.tables)
    ]


def _exchange(sent: dict[str, float], device: Any) -> float:
    """Milliseconds of the collectives of a step for the tables, if nothing else runs: one of each kind, each the median of five."""
    import torch
    import torch.distributed as dist

    from dmoe import distributed

    ranks = distributed.world_size()
    # The largest size of all ranks, since the collectives wait for the slowest rank.
    kinds = ("all_to_all", "reduce_scatter", "all_gather", "all_reduce")
    most = torch.tensor([sent.get(kind, 0.0) for kind in kinds], dtype=torch.float64, device=device)
    if ranks == 1:
        return 0.0
    dist.all_reduce(most, op=dist.ReduceOp.MAX)
    total = 0.0
    for kind, count in zip(kinds, most.tolist(), strict=True):
        if count:
            call = _collective(kind, count, ranks, device)
            total += 1000 * statistics.median(seconds_of(call, device) for _ in range(5))
    return total


def _collective(kind: str, count: float, ranks: int, device: Any) -> Callable[[], Any]:
    """A collective in which every rank sends about `count` bytes."""
    import torch
    import torch.distributed as dist

    a_rank = max(int(count / 4 / (ranks - 1)), 1)
    part = torch.zeros(a_rank, device=device)
    if kind == "all_to_all":
        source, target = torch.zeros(a_rank * ranks, device=device), torch.zeros(a_rank * ranks, device=device)
        return lambda: dist.all_to_all_single(target, source)
    if kind == "reduce_scatter":
        source = torch.zeros(a_rank * ranks, device=device)
        return lambda: dist.reduce_scatter_tensor(part, source)
    if kind == "all_gather":
        target = torch.zeros(a_rank * ranks, device=device)
        return lambda: dist.all_gather_into_tensor(target, part)
    whole = torch.zeros(max(a_rank * ranks // 2, 1), device=device)
    return lambda: dist.all_reduce(whole)


def resident_bytes(peak: bool = False) -> int:
    """Current or peak resident memory of this process; 0 if the system does not report it."""
    try:
        with open("/proc/self/status") as file:
            fields = dict(line.split(":", 1) for line in file)
        return int(fields["VmHWM" if peak else "VmRSS"].split()[0]) * 1024
    except (OSError, KeyError):
        return 0


def run(config_path: str, overrides: list[str], steps: int, output: str) -> None:
    """Measures all ranks of a launched job; rank 0 writes the file."""
    from dmoe import distributed
    from dmoe.config.config import load_config
    from dmoe.data.dataset.manifest import load_manifest
    from dmoe.json_text import format_json
    from dmoe.processes import alive
    from dmoe.storage.paths import write_output
    from dmoe.train.session import open_session
    from dmoe.train.teacher import WITHOUT

    config = load_config(config_path, [*overrides, *WITHOUT])
    manifest = load_manifest(config.data.path)

    device = distributed.start(config.run.timeout_seconds)
    started = resident_bytes()
    session = open_session(config, manifest, device)
    alive.note("measures steps")
    measured = measure_all(session, steps, started)
    if distributed.rank() == 0:
        with write_output(output) as file:
            file.write(format_json(measured).encode())
    distributed.stop()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m dmoe.train.rehearsal.measure", description=__doc__)
    parser.add_argument("--config", required=True, help="the experiment, a YAML file")
    parser.add_argument("--set", action="extend", nargs="+", default=[], metavar="KEY=VALUE", help="override values of the config")
    parser.add_argument("--plan", help="plan file to use (default: make a plan)")
    parser.add_argument("--steps", type=int, default=10, help="steps that are timed (10)")
    parser.add_argument("--output", default="measured.json", help="the file that rank 0 writes, for dmoe plan calibrate --measured")
    arguments = parser.parse_args()
    from dmoe.config.config import setting
    from dmoe.errors import UserError

    if arguments.steps < 1:
        raise UserError(f"--steps {arguments.steps}: expected at least 1")
    from dmoe.train.output.log_filters import quiet

    quiet()
    plan = [setting("sharding.plan", arguments.plan)] if arguments.plan else []
    run(arguments.config, arguments.set + plan, arguments.steps, arguments.output)


if __name__ == "__main__":
    from dmoe.train.elastic.exit_codes import run_rank

    sys.exit(run_rank("dmoe.train.rehearsal.measure", main))
