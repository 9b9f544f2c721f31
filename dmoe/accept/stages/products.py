"""Records the matrix products of a training step, and replays them alone to measure how fast this machine computes them."""

import math
import statistics
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
# Operator -> positions of its two matrices among the arguments.
KINDS: dict[Any, tuple[int, int]] = {aten.mm: (0, 1), aten.bmm: (0, 1), aten.addmm: (1, 2), aten.baddbmm: (1, 2)}
KINDS |= {aten.addmm_: (1, 2), aten.baddbmm_: (1, 2)}


@dataclass(frozen=True)
class Product:
    """A product [.., n, k] @ [.., k, m]; `left` and `right` are (shape, strides) of the operands in the step."""

    batched: bool
    left: tuple[tuple[int, ...], tuple[int, ...]]
    right: tuple[tuple[int, ...], tuple[int, ...]]
    dtype: torch.dtype

    @property
    def flops(self) -> int:
        return 2 * math.prod(self.left[0]) * self.right[0][-1]

    @property
    def of_rows(self) -> bool:
        """Whether the result has a row for each sample. The gradient of a weight has not: it sums over the samples, so k is largest."""
        *_, n, k = self.left[0]
        return k <= max(n, self.right[0][-1])

    def operands(self, device: torch.device) -> tuple[Tensor, Tensor]:
        return _operand(*self.left, self.dtype, device), _operand(*self.right, self.dtype, device)

    def __str__(self) -> str:
        kind = "" if self.dtype == torch.float32 else f" {self.dtype}".replace("torch.", "")
        return f"{list(self.left[0])} @ {list(self.right[0])}{kind}"


class Recorder(TorchDispatchMode):
    """Counts the products that run while it is active, forward and backward."""

    def __init__(self) -> None:
        super().__init__()
        self.products: Counter[Product] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        if func.overloadpacket in KINDS:
            left, right = (args[index] for index in KINDS[func.overloadpacket])
            shapes = (tuple(left.shape), left.stride()), (tuple(right.shape), right.stride())
            self.products[Product(left.dim() == 3, *shapes, left.dtype)] += 1
        return func(*args, **(kwargs or {}))


class Replay:
    """Replays the products of a step, each as often as in the step, with operands and results that are allocated in advance."""

    def __init__(self, products: Counter[Product], device: torch.device) -> None:
        self.jobs = []
        for product, count in products.items():
            left, right = product.operands(device)
            out = torch.matmul(left, right)
            self.jobs.append((product, count, left, right, out, torch.ones_like(out)))
        self.flops = sum(product.flops * count for product, count in products.items())

    def run(self, passes: bool = False) -> None:
        """Runs the products. With `passes`, each result with a row for each sample is then multiplied elementwise, while it is in cache."""
        for product, count, left, right, out, other in self.jobs:
            call = torch.bmm if product.batched else torch.mm
            for _ in range(count):
                call(left, right, out=out)
                if passes and product.of_rows:
                    out.mul_(other)

    def with_passes(self) -> None:
        self.run(passes=True)

    def slowest(self, seconds: Callable[[Callable[[], object]], float]) -> list[tuple[Product, int, float]]:
        """(product, count, seconds of a call), sorted by the total time in a step, the longest first."""
        timed = [
            (product, count, statistics.median(seconds(lambda a=left, b=right: a @ b) for _ in range(3)))  # type: ignore[misc]
            for product, count, left, right, *_ in self.jobs
        ]
        return sorted(timed, key=lambda row: -row[1] * row[2])


def _operand(shape: tuple[int, ...], strides: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    room = 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    return torch.randn(room, dtype=dtype, device=device).as_strided(shape, strides)
