"""Where a step's time goes, by torch.profiler: once by phase of the step, once by kind of operation."""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

from torch.profiler import ProfilerActivity, profile, record_function

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
    "dense optimizer": ("aten::_foreach", "aten::lerp_", "aten::addcmul_", "aten::addcdiv_", "aten::sqrt", "Optimizer.step"),
    "sums": ("aten::sum", "aten::mean"),
    "norms": ("aten::native_layer_norm",),
    "pipeline, autograd and python": ("##", "bench:", "autograd::engine", "Pipeline", "DistributedDataParallel"),
}


def mark_loss(session: Session) -> None:
    """Gives the objective a range of its own in the profile."""
    plain = session.task.objective.forward

    def forward(*inputs: Any) -> Any:
        with record_function(LOSS):
            return plain(*inputs)

    setattr(session.task.objective, "forward", forward)  # noqa: B010


def measure(step: Callable[[], None], steps: int, on_gpu: bool = False) -> tuple[dict[str, float], dict[str, float]]:
    """Milliseconds a step: by phase, whose sum is the step, and by kind of operation (self time). The profiler adds to small ones.

    On a GPU they are the device's: of the kernels that a phase or an operation launched.
    """
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    whole, own = ("device_time_total", "self_device_time_total") if on_gpu else ("cpu_time_total", "self_cpu_time_total")
    with profile(activities=activities) as profiler:
        for _ in range(steps):
            with record_function(STEP):
                step()
    totals: defaultdict[str, float] = defaultdict(float)
    kinds: defaultdict[str, float] = defaultdict(float)
    for event in profiler.key_averages():
        totals[event.key] += getattr(event, whole) / steps / 1e3
        kinds[_kind(event.key)] += getattr(event, own) / steps / 1e3
    phases = {phase: sum(ms for key, ms in totals.items() if key.startswith(names)) for phase, names in PHASES.items()}
    lookup = sum(ms for key, ms in totals.items() if key.startswith("fbgemm::split_embedding_codegen_lookup"))
    tables = max((ms for key, ms in totals.items() if "SplitLookup" in key), default=0.0)
    loss = totals[LOSS]
    phases["forward: lookup"], phases["forward: loss"] = lookup, loss
    phases["forward: dense"] = phases.pop("forward") - lookup - loss
    phases["backward: tables' step"], phases["backward: dense"] = tables, phases.pop("backward") - tables
    phases["rest"] = totals[STEP] - sum(phases.values())
    return phases, dict(kinds)


def _kind(name: str) -> str:
    return next((kind for kind, names in KINDS.items() if name.startswith(names)), "elementwise and the rest")


def per_operation(step: Callable[[], None], steps: int) -> str:
    """The profiler's own table."""
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler:
        for _ in range(steps):
            step()
    table: str = profiler.key_averages(group_by_input_shape=True).table(
        sort_by="self_cpu_time_total", row_limit=45, max_name_column_width=45
    )
    return table
