"""Writes the logit and label of every test row, in the same order for any number of ranks, for paired tests between runs."""

from typing import Any

import numpy as np
import torch.distributed as dist
from torch import Tensor

from dmoe.distributed import rank, world_size
from dmoe.finite import require_finite
from dmoe.storage.paths import write_atomic

FILE = "predictions.npz"
"""File for the test split of a run. A later evaluation writes `evaluation.npz` beside its metrics."""


class Predictions:
    """Collects the rows of this rank's batches: 5 bytes for each row, and 8 more for each expert if these are kept too.

    Each rank has a contiguous part of a global batch, so the rows of all ranks, batch by batch and rank by rank, are in the order of the
    files.

    Args:
        order: name of the order of the rows (`Reader.order`). Two runs can be compared if it is equal.
        step: of the model that made the logits.
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
        """logit [rows] float32, label [rows] bool and further columns of all ranks; empty except on rank 0. Every rank must call it."""
        parts: list[Any] = [self.batches]
        if world_size() > 1:
            parts = [None] * world_size()
            dist.gather_object(self.batches, parts if rank() == 0 else None)
        if rank() != 0:
            return {}
        in_order = [batch for step in zip(*parts, strict=True) for batch in step]
        return {name: np.concatenate([batch[name] for batch in in_order]) for name in in_order[0]}

    def write(self, path: str) -> None:
        """Writes an npz file on rank 0. Every rank must call it.

        Raises:
            UserError: on rank 0, if a logit is not finite. (`Evaluation` refuses such rows earlier, on all ranks.)
        """
        found = self.gather()
        for name, numbers in found.items():
            require_finite(numbers, f"{path}: the {name}")
        if rank() == 0:
            with write_atomic(path) as file:
                np.savez(file, **found, order=np.array(self.order), step=np.array(self.step))  # type: ignore[arg-type]
