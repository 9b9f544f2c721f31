"""The batch that the reader gives to the model.

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

    Every rank has the same number of rows, since the backward pass of TorchRec's row-wise sharding needs that. If a global batch cannot
    be divided equally, the last rows are padding with weight 0 and empty bags; they take part in no loss and no metric.

    Attributes:
        dense_BD: [B, D] float32.
        sparse: KeyedJaggedTensor of the categorical features, in the model's order, int64 ids.
        label_B: [B] float32, 0 or 1.
        weight_B: [B] float32, the row's weight in the loss and the metrics, 0 for padding. If absent, all weights are 1.
        group_B: [B] int64, the row's group for GAUC, 0 if it has none. None if the data set has no groups.
    """

    dense_BD: Tensor
    sparse: KeyedJaggedTensor
    label_B: Tensor
    weight_B: Tensor = None  # type: ignore[assignment]  # ones where absent
    group_B: Tensor | None = None

    def __post_init__(self) -> None:
        if self.weight_B is None:
            self.weight_B = torch.ones_like(self.label_B)

    def to(self, device: torch.device, non_blocking: bool = False) -> "Batch":
        return Batch(
            self.dense_BD.to(device, non_blocking=non_blocking),
            self.sparse.to(device, non_blocking=non_blocking),
            self.label_B.to(device, non_blocking=non_blocking),
            self.weight_B.to(device, non_blocking=non_blocking),
            None if self.group_B is None else self.group_B.to(device, non_blocking=non_blocking),
        )

    def record_stream(self, stream: torch.Stream) -> None:
        for part in (self.dense_BD, self.sparse, self.label_B, self.weight_B):
            part.record_stream(stream)
        if self.group_B is not None:
            self.group_B.record_stream(stream)

    def pin_memory(self) -> "Batch":
        parts = (self.dense_BD.pin_memory(), self.sparse.pin_memory(), self.label_B.pin_memory(), self.weight_B.pin_memory())
        return Batch(*parts, None if self.group_B is None else self.group_B.pin_memory())
