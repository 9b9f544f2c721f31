"""Every test row's logit and label, in one order for any number of ranks: what paired tests between runs need."""

from typing import Any

import numpy as np
import torch.distributed as dist
from torch import Tensor

from dmoe.distributed import rank, world_size
from dmoe.finite import require_finite
from dmoe.paths import write_atomic

FILE = "predictions.npz"
"""Of a run's own test rows; a later evaluation's lies beside its figures, as `evaluation.npz`."""


class Predictions:
    """Collects the rows of this rank's batches: 5 bytes a row.

    A global batch is cut into one stretch a rank, so the rows of all ranks, batch by batch and rank by rank, are in the files' order.

    Args:
        order: names the rows and their order (`Reader.order`): two runs can be compared where it is equal.
        step: of the model whose logits they are.
    """

    def __init__(self, order: str, step: int) -> None:
        self.order, self.step = order, step
        self.batches: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, logit_B: Tensor, label_B: Tensor, weight_B: Tensor) -> None:
        kept_B = weight_B > 0
        self.batches.append((logit_B[kept_B].float().cpu().numpy(), (label_B[kept_B] > 0.5).cpu().numpy()))

    def gather(self) -> tuple[np.ndarray, np.ndarray]:
        """Logits [rows] float32 and labels [rows] bool of all ranks; every rank has to call it, rank 0 gets them, others get none."""
        parts: list[Any] = [self.batches]
        if world_size() > 1:
            parts = [None] * world_size()
            dist.gather_object(self.batches, parts if rank() == 0 else None)
        if rank() != 0:
            return np.empty(0, np.float32), np.empty(0, bool)
        in_order = [batch for step in zip(*parts, strict=True) for batch in step]
        return np.concatenate([logit for logit, _ in in_order]), np.concatenate([label for _, label in in_order])

    def write(self, path: str) -> None:
        """Writes an npz on rank 0; every rank has to call it.

        Raises:
            UserError: on rank 0, a logit is not finite. `Evaluation` refuses such rows before, on all ranks.
        """
        logit, label = self.gather()
        require_finite(logit, f"{path}: the logit")
        if rank() == 0:
            with write_atomic(path) as file:
                np.savez(file, logit=logit, label=label, order=np.array(self.order), step=np.array(self.step))
