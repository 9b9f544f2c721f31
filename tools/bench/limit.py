"""The floor that this machine sets a training step, measured, how much of it dmoe reaches, and where the rest goes.

    python -m tools.bench.limit --batch 4096 --threads 1

The floor adds what cannot be left out: the step's own matrix products (recorded from it, forward and both of backward, replayed alone),
the bytes of the looked-up rows and of their optimiser's state at the measured rate of random rows, the dense optimiser's bytes at the
rate of a copy. With one thread times are the process's CPU seconds, which the neighbours' load hardly moves; else wall-clock.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.distributed as dist

from dmoe.train.quiet import quiet
from dmoe.train.session import open_session
from tools.bench import collectives, phases
from tools.bench.case import Case, add_arguments, case_of, config_of, forever, make_batches, manifest_of
from tools.bench.products import Recorder, Replay
from tools.bench.results import announce, loads


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--operations", action="store_true", help="the profiler's own table too")
    parser.add_argument("--shapes", type=int, default=8, help="products to list")
    arguments = parser.parse_args()
    case = case_of(arguments)
    torch.set_num_threads(case.threads)
    announce()
    print(f"{case.label}; {'CPU seconds' if case.threads == 1 else 'wall-clock'}")
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    quiet()
    session = open_session(config_of(case), manifest_of(case), torch.device("cpu"))
    session.sharded.train()
    batches = forever(make_batches(case, 0))

    def step() -> None:
        session.pipeline.progress(batches)

    step()
    with Recorder() as recorder:
        step()
    replay = Replay(recorder.products)
    dense = sum(parameter.numel() for parameter in session.dense.parameters())
    memory = Memory(case, dense)
    parts: dict[str, Callable[[], None]] = {"step": step, "products": replay.run, "rows": memory.rows, "dense optimizer": memory.optimizer}
    rounds: dict[str, list[float]] = {name: [] for name in parts}
    for call in parts.values():
        call()
    for _ in range(arguments.rounds):
        for name, call in parts.items():
            rounds[name].append(seconds(call, case.threads))
    ms = {name: statistics.median(values) * 1e3 for name, values in rounds.items()}
    reached = statistics.median(sum(parts[1:]) / parts[0] for parts in zip(*rounds.values(), strict=True))
    floor = sum(ms[name] for name in list(parts)[1:])
    print(
        f"products        {ms['products']:8.1f} ms  {replay.flops / 1e9:6.1f} GFLOP at {replay.flops / ms['products'] / 1e6:6.1f} GFLOP/s"
    )
    print(f"looked-up rows  {ms['rows']:8.1f} ms  {memory.row_bytes / 1e6:6.1f} MB at {memory.row_bytes / ms['rows'] / 1e6:6.2f} GB/s")
    rate = memory.optimizer_bytes / ms["dense optimizer"] / 1e6
    print(f"dense optimizer {ms['dense optimizer']:8.1f} ms  {memory.optimizer_bytes / 1e6:6.1f} MB at {rate:6.2f} GB/s (a large copy)")
    print(f"floor           {floor:8.1f} ms; step {ms['step']:.1f} ms: {reached:.0%} of the floor reached (load {loads()})")
    print("slowest products, ms a step: rate")
    timed = [(p, n, statistics.median(seconds(lambda a=a, b=b: a @ b, case.threads) for _ in range(3))) for p, n, a, b, _ in replay.jobs]  # type: ignore[misc]
    for product, count, each in sorted(timed, key=lambda row: -row[1] * row[2])[: arguments.shapes]:
        print(f"  {each * count * 1e3:8.1f}  {count} x {product}  {product.flops / each / 1e9:6.1f} GFLOP/s")
    phases.mark_loss(session)
    by_phase, by_kind = phases.measure(step, 5)
    for title, figures in (("by phase", by_phase), ("by kind of operation", by_kind)):
        whole = sum(figures.values())
        print(f"{title} (wall-clock under the profiler, {whole:.1f} ms a step, load {loads()})")
        for name, value in sorted(figures.items(), key=lambda item: -item[1]):
            print(f"  {name:32} {value:8.2f} ms {value / whole:6.1%}")
    if arguments.operations:
        print(phases.per_operation(step, 3))
    for line in collectives.measured(dense * 4):
        print(line)


class Memory:
    """Work that only moves the bytes that a step must move."""

    def __init__(self, case: Case, dense: int) -> None:
        self.ids = make_batches(case, 0, 1)[0].sparse.values().view(case.features, -1)
        columns = case.sets * case.dim
        self.tables = [torch.zeros(case.rows, columns) for _ in range(case.features)]
        self.states = [torch.zeros(case.rows, columns) for _ in range(case.features)]
        self.out = torch.zeros(self.ids.shape[1], columns)
        # Forward reads each looked-up row; the step reads and writes each distinct one and its state. Results are written once each.
        distinct = sum(len(ids.unique()) for ids in self.ids)
        self.distinct = [ids.unique() for ids in self.ids]
        self.row_bytes = (2 * self.ids.numel() + 6 * distinct) * columns * 4
        # Adam reads a parameter, its gradient and two moments, and writes all but the gradient.
        self.optimizer_bytes = 7 * dense * 4
        self.source, self.target = torch.zeros(self.optimizer_bytes // 8), torch.zeros(self.optimizer_bytes // 8)

    def rows(self) -> None:
        for ids, distinct, table, state in zip(self.ids, self.distinct, self.tables, self.states, strict=True):
            torch.index_select(table, 0, ids, out=self.out)
            part = self.out[: len(distinct)]
            for rows in (table, state):
                torch.index_select(rows, 0, distinct, out=part)
                rows.index_copy_(0, distinct, part)

    def optimizer(self) -> None:
        self.target.copy_(self.source)


def seconds(call: Callable[[], object], threads: int) -> float:
    clock = time.process_time if threads == 1 else time.perf_counter
    start = clock()
    call()
    return clock() - start


if __name__ == "__main__":
    main()
