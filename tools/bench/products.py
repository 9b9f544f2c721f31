"""The matrix products of a training step, as they are called, and how fast this machine does them alone."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
# Of each kind: where its two matrices are among the arguments.
KINDS: dict[Any, tuple[int, int]] = {aten.mm.default: (0, 1), aten.addmm.default: (1, 2), aten.bmm.default: (0, 1)}


@dataclass(frozen=True)
class Product:
    """A product [.., n, k] @ [.., k, m], its operands laid out in memory as the step had them."""

    batched: bool
    left: tuple[tuple[int, ...], tuple[int, ...]]
    right: tuple[tuple[int, ...], tuple[int, ...]]

    @property
    def flops(self) -> int:
        shape = self.left[0]
        count = 2 * self.right[0][-1]
        for size in shape:
            count *= size
        return count

    def operands(self) -> tuple[Tensor, Tensor]:
        return _as(*self.left), _as(*self.right)

    def __str__(self) -> str:
        return f"{list(self.left[0])} @ {list(self.right[0])}"


def _as(shape: tuple[int, ...], strides: tuple[int, ...]) -> Tensor:
    room = 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    return torch.randn(room).as_strided(shape, strides)


class Recorder(TorchDispatchMode):
    """Counts the products that run under it, forward and backward."""

    def __init__(self) -> None:
        super().__init__()
        self.products: Counter[Product] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        if func in KINDS:
            left, right = (args[index] for index in KINDS[func])
            self.products[Product(func is aten.bmm.default, (tuple(left.shape), left.stride()), (tuple(right.shape), right.stride()))] += 1
        return func(*args, **(kwargs or {}))


class Replay:
    """The products of a step, once each as often as it had them, on operands that are there already and into results that are too."""

    def __init__(self, products: Counter[Product]) -> None:
        self.jobs = []
        for product, count in products.items():
            left, right = product.operands()
            self.jobs.append((product, count, left, right, torch.matmul(left, right)))
        self.flops = sum(product.flops * count for product, count in products.items())

    def run(self) -> None:
        for product, count, left, right, out in self.jobs:
            call = torch.bmm if product.batched else torch.mm
            for _ in range(count):
                call(left, right, out=out)
