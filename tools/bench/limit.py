"""The floor that this machine sets a training step, measured, how much of it dmoe reaches, and which operators take the rest.

    python -m tools.bench.limit --batch 4096 --threads 1

The floor adds what cannot be left out: the step's own matrix products (recorded from it, forward and both of backward, replayed alone),
the bytes of the looked-up rows and of their optimizer's state at the measured rate of random rows, the dense optimizer's bytes at the
rate of a copy. All else that a step does, elementwise functions, norms, sums, copies, the pipeline, counts as loss, though PyTorch's
products on a CPU leave no way to fold an activation, a cross or its derivative into them: so a second floor gives every product's result
one elementwise pass, at once, while it is in the cache. With one thread times are the process's CPU seconds, which the neighbours' load
hardly moves; else wall-clock; on a GPU device events. A better formula lowers the floor itself: it is the floor of the model as written.
"""

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tools.bench.case import EXPERT_DIM, Case, add_arguments, case_of, make_batches, opened
from tools.bench.results import add_set, announce, clock, in_turns, loads, parser, ratio, verdict

if TYPE_CHECKING:
    import torch

REACHED, CORRELATION = 0.9, 0.02
"""Targets: the share of the floor that is reached, and that of a step that the correlation loss takes."""
FLOOR = ("products", "rows", "dense optimizer")
LOOSE = ("products with a pass", "rows", "dense optimizer")
KINDS = {
    "products": ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"),
    "tables: lookup": ("fbgemm::split_embedding_codegen_lookup", "fbgemm::split_embedding_codegen_forward"),
    "tables: step": ("fbgemm::split_embedding_backward",),
    "other fbgemm": ("fbgemm::",),
    "copies": ("aten::copy_", "aten::cat", "aten::clone", "aten::stack", "aten::index", "aten::_to_copy"),
    "zeros and fills": ("aten::fill_", "aten::zero_", "aten::zeros", "aten::_foreach_zero_"),
    "collectives": ("c10d::",),
    "dense optimizer": ("aten::_foreach", "aten::_fused_adam", "aten::lerp_", "aten::addcdiv_", "aten::sqrt"),
    "sums": ("aten::sum", "aten::mean"),
    "norms": ("aten::native_layer_norm",),
    "elementwise and the rest": ("",),
}
"""Kind of operation -> how its operators' names begin."""


def main() -> None:
    options = parser(__doc__)
    add_arguments(options)
    options.add_argument("--rounds", type=int, default=9)
    add_set(options)
    arguments = options.parse_args()
    announce()
    case = case_of(arguments)
    print(f"{case.label} {' '.join(arguments.set)}", flush=True)
    measure(case, arguments.rounds, arguments.set)


def measure(case: Case, rounds: int, overrides: Sequence[str]) -> None:
    import torch

    from dmoe import distributed
    from dmoe.accept.stages.products import Recorder, Replay

    session, batches = opened(case, *overrides)

    def step() -> None:
        session.pipeline.progress(batches)

    step()
    # A compiler's products are the same, but in its own kernels.
    with torch.compiler.set_stance("force_eager"), Recorder() as recorder:
        step()
    replay = Replay(recorder.products, session.device)
    memory = Memory(case, sum(parameter.numel() for parameter in session.dense.parameters()), session.device)
    calls = {
        "step": step,
        "products": replay.run,
        "rows": memory.rows,
        "dense optimizer": memory.optimizer,
        "products with a pass": replay.with_passes,
        "correlation loss": correlation(case, session.device),
    }
    taken = in_turns(calls, rounds, clock(case.threads, session.device))
    ms = {name: statistics.median(values) * 1e3 for name, values in taken.items()}
    for name, value in ms.items():
        rate = f"{replay.flops / 1e9:8.1f} GFLOP at {replay.flops / value / 1e6:6.1f} GFLOP/s" if name.startswith("products") else ""
        rate = f"{memory.bytes[name] / 1e6:8.1f} MB at {memory.bytes[name] / value / 1e6:6.2f} GB/s" if name in memory.bytes else rate
        print(f"{name:21} {value:8.1f} ms  {rate}".rstrip())
    for title, names in (("floor", FLOOR), ("floor with a pass", LOOSE)):
        reached = share(taken, names)
        told = "" if names == LOOSE else f", target {REACHED:.0%}: {verdict(reached >= REACHED)}"
        print(f"{title:21} {sum(ms[name] for name in names):8.1f} ms; of it a step reaches {reached:.1%}{told}", flush=True)
    print(f"by kind of operation (load {loads()})")
    by_kind = kinds(step, rounds)
    for name, value in sorted(by_kind.items(), key=lambda item: -item[1]):
        print(f"  {name:32} {value * 1e3:8.2f} ms {value / sum(by_kind.values()):6.1%}")
    distributed.stop()
    loss = share(taken, ["correlation loss"])
    print(f"the correlation loss takes {loss:.2%} of a step, target {CORRELATION:.0%}: {verdict(loss <= CORRELATION)}")
    for batch, sent in correlation_bytes((case.batch, 4 * case.batch), len(case.expert_specs())).items():
        print(f"  it sends {sent:,} bytes a rank of 2 at batch {batch:,}")


def share(taken: dict[str, list[float]], names: Sequence[str]) -> float:
    """Of a step's time, what the parts take together."""
    return ratio([sum(parts) for parts in zip(*(taken[name] for name in names), strict=True)], taken["step"])


class Memory:
    """Work that only moves the bytes that a step must move."""

    def __init__(self, case: Case, dense: int, device: "torch.device") -> None:
        import torch

        self.ids = make_batches(case, 0, 1)[0].sparse.values().view(case.features, -1).to(device)
        columns = case.sets * case.dim
        self.tables, self.states = ([torch.zeros(case.rows, columns, device=device) for _ in range(case.features)] for _ in range(2))
        self.out = torch.zeros(self.ids.shape[1], columns, device=device)
        self.distinct = [ids.unique() for ids in self.ids]
        # Forward reads each looked-up row; the step reads and writes each distinct one and its state. Results are written once each.
        row_bytes = (2 * self.ids.numel() + 6 * sum(len(ids) for ids in self.distinct)) * columns * 4
        # Adam reads a parameter, its gradient and two moments, and writes all but the gradient.
        self.bytes = {"rows": row_bytes, "dense optimizer": 7 * dense * 4}
        self.source = torch.zeros(self.bytes["dense optimizer"] // 8, device=device)
        self.target = torch.zeros_like(self.source)

    def rows(self) -> None:
        import torch

        for ids, distinct, table, state in zip(self.ids, self.distinct, self.tables, self.states, strict=True):
            torch.index_select(table, 0, ids, out=self.out)
            part = self.out[: len(distinct)]
            for rows in (table, state):
                torch.index_select(rows, 0, distinct, out=part)
                rows.index_copy_(0, distinct, part)

    def optimizer(self) -> None:
        self.target.copy_(self.source)


def correlation(case: Case, device: "torch.device") -> Callable[[], None]:
    """The correlation loss of a batch alone, forward and backward, as a step adds it to the experts' outputs."""
    import torch

    from dmoe.model.losses.correlation import CorrelationLoss

    loss = CorrelationLoss()
    outputs_BMD = torch.randn(case.batch // case.ranks, len(case.expert_specs()), EXPERT_DIM, device=device, requires_grad=True)
    mask_B = torch.ones(len(outputs_BMD), device=device)

    def call() -> None:
        outputs_BMD.grad = None
        loss(outputs_BMD, mask_B).loss.backward()

    return call


def correlation_bytes(batches: Sequence[int], experts: int) -> dict[int, int]:
    """Global batch -> bytes that each of two ranks sends for the correlation loss."""
    from dmoe.testing.pool import Pool

    pool = Pool(2)
    try:
        sent: dict[int, int] = pool.run(_sent, batches, experts)[0]
    finally:
        pool.close()
    return sent


def _sent(batches: Sequence[int], experts: int) -> dict[int, int]:
    import torch

    from dmoe.train.rehearsal.collective_bytes import SentBytes

    sent = {}
    for batch in batches:
        call = correlation(Case(batch=batch, ranks=2, experts=experts), torch.device("cpu"))
        with SentBytes() as counter:
            call()
        sent[batch] = sum(counter.sent.values())
    return sent


def kinds(step: Callable[[], None], steps: int) -> dict[str, float]:
    """Seconds of a step by the clock and by kind of operation, their sum being the step as it is without a clock around every operator.

    Not by torch.profiler: its records lie between a step's buffers of megabytes, so that under it they are taken from the system anew,
    and what writes them seems slow (a step of 510 ms took 645 to 970, a product of two [4096, 432] 23 ms instead of 0.7).
    """
    from torch.utils._python_dispatch import TorchDispatchMode

    spent: defaultdict[str, float] = defaultdict(float)

    class Operators(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
            start = time.perf_counter()
            result = func(*args, **(kwargs or {}))
            spent[func._schema.name] += time.perf_counter() - start
            return result

    def watched() -> None:
        with Operators():
            step()

    # The first steps under it allocate otherwise.
    watched()
    watched()
    spent.clear()
    # In turns: a machine's speed drifts.
    whole = 0.0
    for _ in range(steps):
        began = time.perf_counter()
        step()
        whole += (time.perf_counter() - began) / steps
        watched()
    found: defaultdict[str, float] = defaultdict(float)
    for name, taken in spent.items():
        found[next(kind for kind, names in KINDS.items() if name.startswith(names))] += taken / steps
    return dict(found) | {"pipeline, autograd and python": whole - sum(found.values())}


if __name__ == "__main__":
    main()
