"""Latency and bandwidth of the collectives between processes of this machine, and what the correlation loss sends through them."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist

from dmoe.testing.pool import Pool

TIMES, PRODUCTS, PRODUCTS_TURNS = 20, 10, 7


@dataclass(frozen=True)
class Collective:
    """One kind at one size, as rank 0 saw it: microseconds, the best of so many and their median."""

    name: str
    bytes: int
    best_us: float
    median_us: float

    def __str__(self) -> str:
        rate = self.bytes / self.best_us / 1e3
        return f"{self.name:10} {self.bytes / 1e3:10.1f} kB  best {self.best_us:9.0f} us, median {self.median_us:9.0f} us, {rate:6.2f} GB/s"


@dataclass(frozen=True)
class Exchange:
    """Of several processes of one thread.

    Attributes:
        collectives: between them.
        correlation_bytes: global batch -> bytes that a rank sends for the correlation loss.
        together: matrix products a second of all at once, over those of one alone: no more can be gained by their number.
    """

    collectives: list[Collective]
    correlation_bytes: dict[int, int]
    together: float


def measured(sizes: Sequence[int], batches: Sequence[int], experts: int, width: int) -> Exchange:
    """Two gloo processes of one thread each: all-reduce and all-to-all of so many bytes; the loss on outputs [batch, experts, width]."""
    pool = Pool(2)
    try:
        found: Exchange = pool.run(_exchange, sizes, batches, experts, width)[0]
    finally:
        pool.close()
    return found


def _exchange(sizes: Sequence[int], batches: Sequence[int], experts: int, width: int) -> Exchange:
    from dmoe.model.losses.correlation import CorrelationLoss
    from dmoe.train.rehearsal.collective_bytes import SentBytes

    rank, ranks = dist.get_rank(), dist.get_world_size()
    timed = []
    for size in sizes:
        # An all-to-all parts its tensor evenly.
        source = torch.zeros(-(-size // 4 // ranks) * ranks)
        target, count = torch.zeros_like(source), source.numel() * 4
        timed.append(_timed("all_reduce", count, lambda x=source: dist.all_reduce(x)))  # type: ignore[misc]
        timed.append(_timed("all_to_all", count, lambda x=source, y=target: dist.all_to_all_single(y, x)))  # type: ignore[misc]
    sent = {}
    for batch in batches:
        outputs_BMD = torch.randn(batch // ranks, experts, width, requires_grad=True)
        with SentBytes() as counter:
            CorrelationLoss()(outputs_BMD, torch.ones(batch // ranks)).loss.backward()
        sent[batch] = sum(counter.sent.values())
    return Exchange(timed, sent, _together(rank, ranks))


def _together(rank: int, ranks: int) -> float:
    """Turn by turn, rank 0 alone and all at once."""
    left, right = torch.randn(2048, 432), torch.randn(432, 432)
    gains = []
    for _ in range(PRODUCTS_TURNS):
        taken = []
        for working in (rank == 0, True):
            dist.barrier()
            start = time.perf_counter()
            for _ in range(PRODUCTS if working else 0):
                torch.mm(left, right)
            dist.barrier()
            taken.append(time.perf_counter() - start)
        gains.append(ranks * taken[0] / taken[1])
    return statistics.median(gains)


def _timed(name: str, count: int, call: Callable[[], object]) -> Collective:
    taken = []
    for _ in range(TIMES):
        dist.barrier()
        start = time.perf_counter()
        call()
        taken.append((time.perf_counter() - start) * 1e6)
    return Collective(name, count, min(taken), statistics.median(taken))
