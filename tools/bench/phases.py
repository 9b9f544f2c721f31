"""Where a step's time goes: once by phase of the step, once by kind of operation.

On a GPU by torch.profiler. On a CPU by a clock around TorchRec's own ranges, and then around every operator: the profiler's records lie
between a step's buffers of megabytes, so that under it they are taken from the system anew, and what writes them seems slow (a step of
510 ms took 645 to 970, a product of two [4096, 432] 23 ms instead of 0.7).
"""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest import mock

from torch import Tensor
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils._python_dispatch import TorchDispatchMode

from dmoe.train.session import Session

STEP, LOSS = "bench: step", "bench: loss"
# TorchRec's pipeline names its phases; a number at the end is the batch's.
PHASES = {
    "wait for data": ("## next_batch",),
    "ids to device": ("## copy_batch_to_gpu", "## start_sparse_data_dist", "## wait_sparse_data_dist", "## wait_for_batch"),
    "forward": ("## forward",),
    "backward": ("## backward",),
    "optimizer": ("## optimizer",),
    "zero_grad": ("## zero_grad",),
}
KINDS = {
    "products": ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"),
    "tables: lookup": ("fbgemm::split_embedding_codegen_lookup", "fbgemm::split_embedding_codegen_forward"),
    "tables: step": ("SplitLookup", "fbgemm::split_embedding_backward", "CppNode<SplitLookup", "torch::autograd::CppNode"),
    "other fbgemm": ("fbgemm::",),
    "copies": ("aten::copy_", "aten::cat", "aten::clone", "aten::stack", "aten::index", "aten::_to_copy"),
    "zeros and fills": ("aten::fill_", "aten::zero_", "aten::zeros", "aten::_foreach_zero_"),
    "collectives": ("gloo:", "nccl:", "c10d::"),
    "dense optimizer": ("aten::_foreach", "aten::_fused_adam", "aten::lerp_", "aten::addcdiv_", "aten::sqrt", "Optimizer.step"),
    "sums": ("aten::sum", "aten::mean"),
    "norms": ("aten::native_layer_norm",),
}
REST = "pipeline, autograd and python"
OUR_OWN = ("##", "bench:", "autograd::engine", "Pipeline", "DistributedDataParallel")


def mark_loss(session: Session) -> None:
    """Gives the objective a range of its own in the profile."""
    plain = session.task.objective.forward

    def forward(*inputs: Any) -> Any:
        with record_function(LOSS):
            return plain(*inputs)

    setattr(session.task.objective, "forward", forward)  # noqa: B010


def measure(step: Callable[[], None], steps: int, on_gpu: bool = False) -> tuple[dict[str, float], dict[str, float]]:
    """Milliseconds a step: by phase and by kind of operation, the sum of either being the step.

    On a GPU they are the device's: of the kernels that a phase or an operation launched.
    """
    return _phases_and_kinds(_by_profiler(step, steps)) if on_gpu else _by_clock(step, steps)


def _by_clock(step: Callable[[], None], steps: int) -> tuple[dict[str, float], dict[str, float]]:
    ranges: defaultdict[str, float] = defaultdict(float)
    operators = _Operators()
    # The first steps under it allocate otherwise.
    with _Operators():
        for _ in range(2):
            step()
    # In turns: a machine's speed drifts.
    for _ in range(steps):
        with _timed_ranges(ranges), record_function(STEP):
            step()
        with operators:
            step()
    totals = {name: taken / steps * 1e3 for name, taken in ranges.items()}
    kinds: defaultdict[str, float] = defaultdict(float)
    for name, taken in operators.seconds.items():
        kinds[_kind(name)] += taken / steps * 1e3
    kinds[REST] = totals[STEP] - sum(kinds.values())
    return _phases(totals, kinds["tables: lookup"], kinds["tables: step"]), dict(kinds)


@contextmanager
def _timed_ranges(seconds: defaultdict[str, float]) -> Iterator[None]:
    """Adds up the seconds within each of the profiler's ranges, while no profiler runs."""
    begun: list[float] = []

    def enter(marked: record_function) -> record_function:
        begun.append(time.perf_counter())
        return marked

    def leave(marked: record_function, *_: object) -> None:
        seconds[marked.name] += time.perf_counter() - begun.pop()

    with mock.patch.multiple(record_function, __enter__=enter, __exit__=leave):
        yield


class _Operators(TorchDispatchMode):
    """Seconds within each operator, forward and backward; with `shapes`, of each by the shapes that it is given."""

    def __init__(self, shapes: bool = False) -> None:
        super().__init__()
        self.shapes = shapes
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        start = time.perf_counter()
        result = func(*args, **(kwargs or {}))
        taken = time.perf_counter() - start
        name = func._schema.name
        if self.shapes:
            name += "".join(f" {list(one.shape)}" for one in args if isinstance(one, Tensor))
        self.seconds[name] += taken
        self.calls[name] += 1
        return result


def _by_profiler(step: Callable[[], None], steps: int) -> dict[str, tuple[float, float]]:
    """Of each name: the device's milliseconds in all and its own."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        for _ in range(steps):
            with record_function(STEP):
                step()
    events: defaultdict[str, tuple[float, float]] = defaultdict(lambda: (0.0, 0.0))
    for event in profiler.key_averages():
        whole, own = events[event.key]
        events[event.key] = whole + event.device_time_total / steps / 1e3, own + event.self_device_time_total / steps / 1e3
    return events


def _phases_and_kinds(events: Mapping[str, tuple[float, float]]) -> tuple[dict[str, float], dict[str, float]]:
    kinds: defaultdict[str, float] = defaultdict(float)
    for name, (_, own) in events.items():
        kinds[_kind(name)] += own
    totals = {name: whole for name, (whole, _) in events.items()}
    lookup = sum(ms for name, ms in totals.items() if name.startswith("fbgemm::split_embedding_codegen_lookup"))
    tables = max((ms for name, ms in totals.items() if "SplitLookup" in name), default=0.0)
    return _phases(totals, lookup, tables), dict(kinds)


def _phases(totals: Mapping[str, float], lookup: float, tables: float) -> dict[str, float]:
    phases = {phase: sum(ms for name, ms in totals.items() if name.startswith(names)) for phase, names in PHASES.items()}
    loss = totals.get(LOSS, 0.0)
    phases["forward: lookup"], phases["forward: loss"] = lookup, loss
    phases["forward: dense"] = phases.pop("forward") - lookup - loss
    phases["backward: tables' step"], phases["backward: dense"] = tables, phases.pop("backward") - tables
    phases["rest"] = totals[STEP] - sum(phases.values())
    return phases


def _kind(name: str) -> str:
    if name.startswith(OUR_OWN):
        return REST
    return next((kind for kind, names in KINDS.items() if name.startswith(names)), "elementwise and the rest")


def per_operation(step: Callable[[], None], steps: int, rows: int = 45) -> str:
    """The operators that take most of a step, by their shapes."""
    operators = _Operators(shapes=True)
    with operators:
        for _ in range(steps):
            step()
    slowest = sorted(operators.seconds, key=lambda name: -operators.seconds[name])[:rows]
    lines = [f"{operators.seconds[name] / steps * 1e3:8.2f} ms {operators.calls[name] / steps:6.0f} x {name:.120}" for name in slowest]
    return "\n".join(lines)
