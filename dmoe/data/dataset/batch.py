"""What the reader hands to the model.

Shapes: B rows of this rank, D dense features.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor
from torchrec.streamable import Pipelineable


@dataclass
class Batch(Pipelineable):
    """One rank's share of a global batch.

    Every rank holds the same number of rows, since TorchRec's row-wise sharding needs that in its backward pass: where a global
    batch does not divide, the last rows are padding of weight 0, with empty bags, and take part in no loss and no metric.

    Attributes:
        dense_BD: [B, D] float32.
        sparse: KeyedJaggedTensor of the categorical features, in the model's order, int64 ids.
        label_B: [B] float32, 0 or 1.
        weight_B: [B] float32, the row's weight in the loss and the metrics, 0 for padding; ones where absent.
        group_B: [B] int64, the row's group for GAUC, 0 where it has none; None where the data set has no groups.
        teacher_B: [B] float32, the probability that a teacher gives the row; None where there is no teacher.
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
        return Batch(
            self.dense_BD.to(device, non_blocking=non_blocking),
            self.sparse.to(device, non_blocking=non_blocking),
            self.label_B.to(device, non_blocking=non_blocking),
            self.weight_B.to(device, non_blocking=non_blocking),
            *(None if part is None else part.to(device, non_blocking=non_blocking) for part in (self.group_B, self.teacher_B)),
        )

    def record_stream(self, stream: torch.Stream) -> None:
        for part in (self.dense_BD, self.sparse, self.label_B, self.weight_B):
            part.record_stream(stream)
        for further in (self.group_B, self.teacher_B):
            if further is not None:
                further.record_stream(stream)

    def pin_memory(self) -> "Batch":
        parts = (self.dense_BD.pin_memory(), self.sparse.pin_memory(), self.label_B.pin_memory(), self.weight_B.pin_memory())
        return Batch(*parts, *(None if part is None else part.pin_memory() for part in (self.group_B, self.teacher_B)))
