"""Stages about the machine: library versions, drivers and devices of the ranks; and the collectives between them."""

import os
import platform
import statistics
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

from dmoe.accept.conductor import Job
from dmoe.accept.finding import Notes, Skipped
from dmoe.train.rehearsal.measure import seconds_of

GPU_SHARE, CPU_SHARE = 0.25, 0.004
"""Smallest allowed share of the bandwidth that a plan assumes; gloo on a busy host is much slower than a network card."""
GPU_BYTES, CPU_BYTES = 64 << 20, 4 << 20
ROUNDS = 5


def versions(job: Job, notes: Notes) -> None:
    """The stage `versions`: runs the checks of dmoe doctor on this host, and compares the devices of all ranks."""
    if job.level != "dense":
        from dmoe.doctor import findings

        for finding in findings(lookup=False):
            notes.hold(finding.sound, f"{finding.check}: {finding.found}; to repair it: {finding.mend}")
    told = job.ranks.run(describe)
    job.ranks.kept["machine"] = told[0] | {"host names": sorted({one.pop("host names") for one in told})}
    notes.figure("ranks", len(told))
    notes.figure("device memory", told[0]["memory_gb"], "GB")
    for key in ("torch", "cuda", "nccl", "device"):
        others = {str(one[key]) for one in told}
        notes.hold(len(others) == 1, f"the ranks differ in {key}: {', '.join(sorted(others))}")


def describe() -> dict[str, Any]:
    """Device and libraries of this rank, and the name of its host, which a report leaves out by default."""
    import torch

    from dmoe import distributed

    device = distributed.device_of_this_rank()
    on_gpu = device.type == "cuda"
    host_memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    memory = torch.cuda.get_device_properties(device).total_memory if on_gpu else host_memory
    # Computes on the device: an incompatible driver fails here.
    assert float(torch.arange(10.0, device=device).sum().cpu()) == 45.0
    return {
        "torch": str(torch.__version__),
        "cuda": str(torch.version.cuda),
        "nccl": ".".join(map(str, torch.cuda.nccl.version())) if on_gpu else "None",
        "driver": _driver() if on_gpu else "None",
        "device": torch.cuda.get_device_name(device) if on_gpu else platform.machine(),
        "backend": "nccl and gloo" if on_gpu else "gloo",
        "cpus": os.cpu_count(),
        "memory_gb": memory / 1e9,
        "host names": platform.node(),
    }


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.splitlines()[0].strip()
    except (OSError, subprocess.SubprocessError, IndexError):
        return "unknown"


def collectives(job: Job, notes: Notes) -> None:
    """The stage `collectives`: checks that sums and exchanges, even and uneven ones, are exact, and compares bandwidths with the plan's."""
    if job.ranks.size == 1:
        raise Skipped("one rank has nobody to exchange with")
    for kind in ("cpu", *["cuda"] * job.on_gpu):
        told = job.ranks.run(exchange, kind)
        backend, share = ("NCCL", GPU_SHARE) if kind == "cuda" else ("gloo", CPU_SHARE)
        for rank, one in enumerate(told):
            for name in one["wrong"]:
                notes.hold(False, f"{backend}: {name} gave rank {rank} wrong numbers")
        seen = told[0]
        notes.figure(f"{backend} all-reduce of 16 bytes", max(one["small_us"] for one in told), "us")
        for name in ("all_reduce", "all_to_all"):
            rate = min(one[name] for one in told)
            notes.at_least(f"{backend} {name.replace('_', '-')} a rank", rate / 1e9, share * seen["assumed"] / 1e9, "GB/s")
        notes.figure(f"{backend} bandwidth that a plan assumes", seen["assumed"] / 1e9, "GB/s")
        slowest = min((rate, rank, other) for rank, one in enumerate(told) for other, rate in one["pairs"])
        middle = statistics.median(rate for one in told for _, rate in one["pairs"])
        notes.figure(f"{backend} slowest pair of ranks, {slowest[1]} to {slowest[2]}", slowest[0] / 1e9, "GB/s")
        if kind == "cuda" and job.hosts == 1:
            notes.at_least(f"{backend} slowest pair beside the median pair", slowest[0] / middle, 0.25)


def exchange(kind: str) -> dict[str, Any]:
    """Runs collectives on tensors of `kind` (cpu or cuda): wrong results, latency and bandwidths on this rank."""
    import torch
    import torch.distributed as dist

    from dmoe import distributed
    from dmoe.sharding.planner.cluster import cluster_of_this_job

    device = distributed.device_of_this_rank() if kind == "cuda" else torch.device("cpu")
    ranks, rank = distributed.world_size(), distributed.rank()
    # The number of 4-byte elements, rounded down to equal parts for all ranks.
    count = (GPU_BYTES if kind == "cuda" else CPU_BYTES) // 4 // ranks * ranks
    source, target = torch.ones(count, device=device), torch.empty(count, device=device)
    cluster = cluster_of_this_job(device.type)
    link = cluster.device.node_link if cluster.nodes == 1 else min(cluster.device.node_link, cluster.device.network)
    leaving = count * 4 * (ranks - 1) / ranks
    small = torch.zeros(2, dtype=torch.int64, device=device)
    return {
        "wrong": list(_wrong(device)),
        "small_us": 1e6 * _best(lambda: dist.all_reduce(small), device),
        "all_reduce": 2 * leaving / _best(lambda: dist.all_reduce(source, op=dist.ReduceOp.MAX), device),
        "all_to_all": leaving / _best(lambda: dist.all_to_all_single(target, source), device),
        "assumed": link,
        "pairs": [((rank + step) % ranks, _pair_rate(step, source, target, device)) for step in range(1, min(ranks, 9))],
    }


def _wrong(device: Any) -> Iterator[str]:
    """Yields the names of collectives with wrong results. Operands are integers, so results must be exact."""
    import torch
    import torch.distributed as dist

    from dmoe import distributed

    ranks, rank = distributed.world_size(), distributed.rank()
    for dtype in (torch.float32, torch.float64, torch.int64):
        x = torch.arange(1000, device=device).to(dtype) * (rank + 1)
        dist.all_reduce(x)
        if not torch.equal(x.cpu(), (torch.arange(1000) * (ranks * (ranks + 1) // 2)).to(dtype)):
            yield f"all-reduce of {str(dtype).removeprefix('torch.')}"
    # Rank r sends sizes[r][s] numbers to rank s, each r * 1000 + s. With uneven sizes, rank 0 sends none.
    uneven = [[r * (s + 1) for s in range(ranks)] for r in range(ranks)]
    for name, sizes in (("all-to-all", [[4] * ranks] * ranks), ("uneven all-to-all", uneven)):
        sent = torch.cat([torch.full((sizes[rank][s],), float(rank * 1000 + s)) for s in range(ranks)]).to(device)
        mine = [sizes[r][rank] for r in range(ranks)]
        got = torch.empty(sum(mine), device=device)
        dist.all_to_all_single(got, sent, mine, sizes[rank])
        if not torch.equal(got.cpu(), torch.cat([torch.full((size,), float(r * 1000 + rank)) for r, size in enumerate(mine)])):
            yield name
    whole = torch.arange(4.0 * ranks, device=device) + rank
    part = torch.empty(4, device=device)
    dist.reduce_scatter_tensor(part, whole)
    expected = ranks * (torch.arange(4.0) + 4 * rank) + ranks * (ranks - 1) / 2
    if not torch.equal(part.cpu(), expected):
        yield "reduce-scatter"
    gathered = torch.empty(4 * ranks, device=device)
    dist.all_gather_into_tensor(gathered, torch.full((4,), float(rank), device=device))
    if not torch.equal(gathered.cpu(), torch.arange(float(ranks)).repeat_interleave(4)):
        yield "all-gather"


def _best(call: Callable[[], object], device: Any) -> float:
    """Seconds of the fastest of ROUNDS calls."""
    return min(seconds_of(call, device) for _ in range(ROUNDS))


def _pair_rate(step: int, source: Any, target: Any, device: Any) -> float:
    """Bytes per second to rank + step, while rank - step sends to this rank."""
    import torch.distributed as dist

    from dmoe import distributed

    ranks, rank = distributed.world_size(), distributed.rank()

    def send() -> None:
        pair = [dist.P2POp(dist.isend, source, (rank + step) % ranks), dist.P2POp(dist.irecv, target, (rank - step) % ranks)]
        for work in dist.batch_isend_irecv(pair):
            work.wait()

    return float(source.numel() * 4 / _best(send, device))
