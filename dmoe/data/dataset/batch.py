"""The batch that the reader gives to the model.

Shapes: B rows of this rank, D dense features.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor
from torchrec.streamable import Pipelineable


@dataclass
class Batch(Pipelineable):
    """One rank's share of a global batch.

    Every rank has the same number of rows, since the backward pass of TorchRec's row-wise sharding needs that. If a global batch cannot
    be divided equally, the last rows are padding with weight 0 and empty bags; they take part in no loss and no metric.

    Attributes:
        dense_BD: [B, D] float32.
        sparse: KeyedJaggedTensor of the categorical features, in the model's order, int64 ids.
        label_B: [B] float32, 0 or 1.
        weight_B: [B] float32, the row's weight in the loss and the metrics, 0 for padding. If absent, all weights are 1.
        group_B: [B] int64, the row's group for GAUC, 0 if it has none. None if the data set has no groups.
        teacher_B: [B] float32, the logit of a teacher model. None if there is no teacher.
    """

    dense_BD: Tensor
    sparse: KeyedJaggedTensor
    label_B: Tensor
    weight_B: Tensor = None  # type: ignore[assignment]  # ones where absent
    group_B: Tensor | None = None
    teacher_B: Tensor | None = None

    def __post_init__(self) -> None:
        if self.weight_B is None:
            self.weight_B = torch.ones_like(self.label_B)

    def to(self, device: torch.device, non_blocking: bool = False) -> "Batch":
        return self._each(lambda part: part.to(device, non_blocking=non_blocking))

    def record_stream(self, stream: torch.Stream) -> None:
        for part in vars(self).values():
            if part is not None:
                part.record_stream(stream)

    def pin_memory(self) -> "Batch":
        return self._each(lambda part: part.pin_memory())

    def _each(self, change: Callable[[Any], Any]) -> "Batch":
        parts: dict[str, Any] = {name: None if part is None else change(part) for name, part in vars(self).items()}
        return Batch(**parts)
