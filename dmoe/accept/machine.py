"""The machine itself: versions that fit, drivers, the ranks' devices; and the collectives between them."""

import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

from dmoe.accept.conductor import Job
from dmoe.accept.finding import Notes, Skipped

GPU_SHARE, CPU_SHARE = 0.25, 0.004
"""Of the bandwidth that a plan assumes, what must be reached; gloo on a busy host is far below a network card."""
GPU_BYTES, CPU_BYTES = 64 << 20, 4 << 20
ROUNDS = 5


def versions(job: Job, notes: Notes) -> None:
    """The stage `versions`: the doctor's checks on this host, and every rank's device."""
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
    """This rank's device and libraries, and its host's name, which a report leaves out."""
    import torch

    from dmoe import distributed

    device = distributed.device_of_this_rank()
    on_gpu = device.type == "cuda"
    memory = torch.cuda.get_device_properties(device).total_memory if on_gpu else _host_memory()
    # A number that went to the device and back: a driver that does not fit fails here.
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


def _host_memory() -> float:
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def collectives(job: Job, notes: Notes) -> None:
    """The stage `collectives`: exact sums and exchanges, even and uneven, and their bandwidth beside the plan's."""
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
    """What the collectives of this rank gave and took, on tensors of `kind`."""
    import torch
    import torch.distributed as dist

    from dmoe import distributed
    from dmoe.sharding.planner.cluster import cluster_of_this_job

    device = distributed.device_of_this_rank() if kind == "cuda" else torch.device("cpu")
    ranks, rank = distributed.world_size(), distributed.rank()
    # A split of equal 4-byte numbers for every rank.
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
    """Names of collectives whose result is not the one that whole numbers give exactly."""
    import torch
    import torch.distributed as dist

    from dmoe import distributed

    ranks, rank = distributed.world_size(), distributed.rank()
    for dtype in (torch.float32, torch.float64, torch.int64):
        x = torch.arange(1000, device=device).to(dtype) * (rank + 1)
        dist.all_reduce(x)
        if not torch.equal(x.cpu(), (torch.arange(1000) * (ranks * (ranks + 1) // 2)).to(dtype)):
            yield f"all-reduce of {str(dtype).removeprefix('torch.')}"
    # sizes[r][s]: how many numbers rank r sends to rank s, each r * 1000 + s; rank 0 sends none where they are uneven.
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
    """Seconds of the fastest of some calls, the device's work included."""
    taken = []
    for _ in range(ROUNDS):
        synchronize(device)
        began = time.perf_counter()
        call()
        synchronize(device)
        taken.append(time.perf_counter() - began)
    return min(taken)


def _pair_rate(step: int, source: Any, target: Any, device: Any) -> float:
    """Bytes a second to the rank that many further on, while the one as many before sends here."""
    import torch.distributed as dist

    from dmoe import distributed

    ranks, rank = distributed.world_size(), distributed.rank()

    def send() -> None:
        pair = [dist.P2POp(dist.isend, source, (rank + step) % ranks), dist.P2POp(dist.irecv, target, (rank - step) % ranks)]
        for work in dist.batch_isend_irecv(pair):
            work.wait()

    return float(source.numel() * 4 / _best(send, device))


def synchronize(device: Any) -> None:
    """Waits for the device's work; a CPU has none that is not done."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
