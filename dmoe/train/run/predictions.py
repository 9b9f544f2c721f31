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
    """Collects the rows of this rank's batches: 5 bytes a row, and 8 more for each expert where these are kept too.

    A global batch is cut into one stretch a rank, so the rows of all ranks, batch by batch and rank by rank, are in the files' order.

    Args:
        order: names the rows and their order (`Reader.order`): two runs can be compared where it is equal.
        step: of the model whose logits they are.
    """

    def __init__(self, order: str, step: int) -> None:
        self.order, self.step = order, step
        self.batches: list[dict[str, np.ndarray]] = []

    def add(self, logit_B: Tensor, label_B: Tensor, weight_B: Tensor, **more: Tensor) -> None:
        """Keeps the rows of a batch.

        Args:
            more: further numbers of each row by name, [B] or [B, M]; the same names in every batch.
        """
        kept_B = weight_B > 0
        numbers = {name: x[kept_B].float().cpu().numpy() for name, x in {"logit": logit_B, **more}.items()}
        self.batches.append({**numbers, "label": (label_B[kept_B] > 0.5).cpu().numpy()})

    def gather(self) -> dict[str, np.ndarray]:
        """logit [rows] float32, label [rows] bool and what else was kept, of all ranks; every rank has to call it, rank 0 gets them, others
        get none."""
        parts: list[Any] = [self.batches]
        if world_size() > 1:
            parts = [None] * world_size()
            dist.gather_object(self.batches, parts if rank() == 0 else None)
        if rank() != 0:
            return {}
        in_order = [batch for step in zip(*parts, strict=True) for batch in step]
        return {name: np.concatenate([batch[name] for batch in in_order]) for name in in_order[0]}

    def write(self, path: str) -> None:
        """Writes an npz on rank 0; every rank has to call it.

        Raises:
            UserError: on rank 0, a logit is not finite. `Evaluation` refuses such rows before, on all ranks.
        """
        found = self.gather()
        for name, numbers in found.items():
            require_finite(numbers, f"{path}: the {name}")
        if rank() == 0:
            with write_atomic(path) as file:
                np.savez(file, **found, order=np.array(self.order), step=np.array(self.step))  # type: ignore[arg-type]
