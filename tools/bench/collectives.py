"""Latency and bandwidth of the collectives between two processes of this machine, as one rank sees them."""

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing


def measured(dense_bytes: int, ranks: int = 2) -> list[str]:
    """A line for each collective and size: scalars as the objective sends, a batch's embeddings, the dense gradients."""
    context = multiprocessing.get_context("spawn")
    answers = context.SimpleQueue()
    with tempfile.TemporaryDirectory() as folder:
        arguments = (f"{folder}/store", ranks, (8, 65_536, 4 << 20, dense_bytes), answers)
        multiprocessing.start_processes(_serve, arguments, nprocs=ranks, start_method="spawn")
    lines: list[str] = answers.get()
    return lines


def _serve(rank: int, store: str, ranks: int, sizes: Sequence[int], answers: "multiprocessing.SimpleQueue[list[str]]") -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.FileStore(store, ranks), rank=rank, world_size=ranks)
    lines = [f"collectives of {ranks} processes (gloo, wall-clock, the best of 10 and their median)"]
    for size in sizes:
        source = torch.zeros(max(size // 4, ranks))
        target = torch.zeros_like(source)
        lines.append(_line("all_reduce", size, lambda x=source: dist.all_reduce(x)))  # type: ignore[misc]
        lines.append(_line("all_to_all", size, lambda x=source, y=target: dist.all_to_all_single(y, x)))  # type: ignore[misc]
    if rank == 0:
        answers.put(lines)
    dist.destroy_process_group()


def _line(name: str, size: int, call: Callable[[], object]) -> str:
    taken = []
    for _ in range(10):
        dist.barrier()
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    best, middle = min(taken), statistics.median(taken)
    return f"  {name} {size / 1e3:10.1f} kB  best {best * 1e6:10.0f} us, median {middle * 1e6:10.0f} us, {size / best / 1e9:6.2f} GB/s"
