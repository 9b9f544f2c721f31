"""The stage `waits`: hidden synchronizations in a training step, when a number is copied to the host or a size depends on device data.

On a GPU, PyTorch itself warns of each synchronization. On a CPU nothing waits, so a dispatch mode counts the operators that would.
"""

import sys
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from dmoe.accept.conductor import Job
from dmoe.accept.finding import Notes
from dmoe.accept.stages.speed import session_of

aten = torch.ops.aten
WAITING = {aten._local_scalar_dense, aten.nonzero, aten.nonzero_numpy, aten.masked_select, aten.equal, aten.is_nonzero, aten._unique2}
"""Operators that wait for the device, because their result, or its size, is needed on the host."""
WAITING |= {aten.unique_dim, aten.unique_consecutive, aten.argwhere, aten.bincount, aten.item}
READS = {torch.Tensor.tolist, torch.Tensor.cpu, torch.Tensor.numpy}
"""Methods that copy data from the device; for a CPU tensor they call no operator."""
LIBRARIES = ("torchrec", "fbgemm_gpu")
"""Packages whose own waits are not counted as problems. PyTorch is not one of them, because it is in every call stack."""
PACKAGE = str(Path(__file__).resolve().parents[2])


def hidden_waits(job: Job, notes: Notes) -> None:
    """The stage `waits`: a training step must not wait for the device; only a log line may."""
    found = job.ranks.run(in_a_step, job.on_gpu)[0]
    for place, times in found.items():
        notes.hold(place.startswith("libraries"), f"a step waits for the device {times} times at {place}")
    notes.figure("waits of TorchRec's own in a step", sum(times for place, times in found.items() if place.startswith("libraries")))


class Waits(TorchDispatchMode):
    """Counts the operators that would wait for a device while it is active; `found` is `file:line operator` of dmoe -> count.

    An operator that TorchRec or FBGEMM calls, or that no code of dmoe calls, counts as `libraries`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()
        self._reads = _Reads(self.found)

    def __enter__(self) -> "Waits":
        self._reads.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)
        self._reads.__exit__(*raised)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        if waits(func, args):
            self.found[f"{_caller()} {func.overloadpacket}"] += 1
        return func(*args, **(kwargs or {}))


class _Reads(TorchFunctionMode):
    def __init__(self, found: Counter[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        if func in READS:
            self.found[f"{_caller()} {func.__name__}"] += 1
        return func(*args, **(kwargs or {}))


def waits(func: Any, args: tuple[Any, ...]) -> bool:
    """Whether an operator waits for the device; also indexing with a mask, because the size of the result depends on the mask."""
    if func.overloadpacket in WAITING:
        return True
    if func.overloadpacket in (aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_):
        masks = [one for one in args[1] if one is not None and one.dtype in (torch.bool, torch.uint8)]
        return bool(masks)
    return False


def _caller() -> str:
    """The innermost caller in dmoe outside this package; `libraries` if a frame of TorchRec or FBGEMM is further in, or there is no such
    caller."""
    frame: Any = sys._getframe(2)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(PACKAGE):
            place = path.relative_to(PACKAGE)
            if place.parts[0] != "accept":
                return f"{place}:{frame.f_lineno}"
        elif any(name in path.parts for name in LIBRARIES):
            return "libraries"
        frame = frame.f_back
    return "libraries"


def count(step: Any, on_gpu: bool) -> dict[str, int]:
    """Calls a training step; returns place -> number of waits."""
    if not on_gpu:
        with Waits() as mode:
            step()
        return dict(mode.found)
    found: Counter[str] = Counter()

    def note(message: Warning | str, *_: Any, **__: Any) -> None:
        if "synchroniz" in str(message):
            found[_caller()] += 1

    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            # `note` is called at the place of the warning, so the call stack shows what waits.
            warnings.showwarning = note
            step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return dict(found)


def in_a_step(on_gpu: bool) -> dict[str, int]:
    """The waits in a training step of the test model on this rank, including its log window."""
    from dmoe.train.output.log_window import Window

    session, stream = session_of(on_gpu, 1000, 64)
    window = Window(0, session.device)
    for _ in range(3):
        window.add(session.pipeline.progress(stream)[0])

    def step() -> None:
        window.add(session.pipeline.progress(stream)[0])

    return count(step, on_gpu)
