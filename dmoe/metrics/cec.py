"""Cross-expert correlation over a whole evaluation set: streaming, mergeable, in float64 (docs/method.md).

Shapes: B rows of a batch, M experts, D dims of an expert's output, P = M * D.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torchmetrics import Metric

from dmoe.distributed import world_size
from dmoe.model.losses.correlation import DEAD_RELATIVE_VARIANCE


class Moments:
    """Number, mean [P] and scatter [P, P] of the rows so far (Chan, Golub, LeVeque 1979), in float64."""

    def __init__(self, width: int, device: torch.device | str = "cpu") -> None:
        self.rows = torch.zeros((), dtype=torch.float64, device=device)
        self.mean_P = torch.zeros(width, dtype=torch.float64, device=device)
        self.scatter_PP = torch.zeros(width, width, dtype=torch.float64, device=device)

    def update(self, x_BP: Tensor) -> None:
        if len(x_BP):
            x_BP = x_BP.double()
            mean_P = x_BP.mean(0)
            centred_BP = x_BP - mean_P
            self._merge(x_BP.new_tensor(float(len(x_BP))), mean_P, centred_BP.T @ centred_BP)

    def merge(self, other: "Moments") -> None:
        if other.rows > 0:
            self._merge(other.rows, other.mean_P, other.scatter_PP)

    def _merge(self, rows: Tensor, mean_P: Tensor, scatter_PP: Tensor) -> None:
        total = self.rows + rows
        step_P = mean_P - self.mean_P
        self.scatter_PP += scatter_PP + torch.outer(step_P, step_P) * (self.rows * rows / total)
        self.mean_P = self.mean_P + step_P * (rows / total)
        self.rows = total

    def flat(self) -> Tensor:
        """[1 + P + P * P]: number of rows, mean and scatter; `from_flat` reads this format."""
        return torch.cat([self.rows[None], self.mean_P, self.scatter_PP.flatten()])

    @classmethod
    def from_flat(cls, flat: Tensor, width: int) -> "Moments":
        """The moments stored in `flat`, as a copy."""
        moments = cls(width, flat.device)
        moments.rows, moments.mean_P = flat[0].clone(), flat[1 : width + 1].clone()
        moments.scatter_PP = flat[width + 1 :].view(width, width).clone()
        return moments


@dataclass(frozen=True)
class CecReport:
    """Correlation of the experts' outputs. Matrices are [M, M] lists; undefined values are `nan`.

    Attributes:
        cec: mean |r| over entries and pairs of experts.
        floor: expected value for independent experts and this number of rows: sqrt(2 / (pi (rows - 1))).
        matrix: mean |r| of each pair; the diagonal has the ceiling CEC(h, h).
        cka: linear CKA, which is invariant to rotations.
        by_class: CEC of the rows with label 0 and with label 1, with `by_class_floor` and `by_class_ceiling` (mean CEC(h, h)) for each.
        within_class: CEC of the outputs after subtracting the mean of each label: the correlation that the label does not explain.
        dead: number of columns without variance, per expert.
        variance: mean variance of the other columns, per expert.
    """

    cec: float
    floor: float
    matrix: list[list[float]]
    cka: list[list[float]]
    by_class: list[float]
    by_class_floor: list[float]
    by_class_ceiling: list[float]
    within_class: float
    dead: list[int]
    variance: list[float]
    rows: int


class CrossExpertCorrelation(Metric):
    """Accumulates moments of the experts' outputs for each label; merging both labels gives the moments of all rows.

    Ranks merge with one all-gather of 2 (1 + P + P^2) float64 numbers, for any number of rows.

    Args:
        experts: M.
        width: D.

    Shape:
        - Input of `update`: hidden [B, M, D]; label [B] of 0 and 1; mask [B], 0 for padding (default: all rows count).
        - Output: CecReport; its `cec` is the main figure.

    Examples:
        >>> metric = CrossExpertCorrelation(experts=2, width=1)
        >>> outputs_BMD = torch.tensor([[[1.0], [2.0]], [[2.0], [4.0]], [[3.0], [6.0]]])
        >>> metric.update(outputs_BMD, torch.tensor([0.0, 1.0, 0.0]))
        >>> round(metric.compute().cec, 6)
        1.0
    """

    higher_is_better = False
    full_state_update = True
    moments_2L: Tensor

    def __init__(self, experts: int, width: int, **settings: Any) -> None:
        super().__init__(**{"dist_sync_fn": _gathered, **settings})
        self.experts, self.columns = experts, experts * width
        zeros_2L = torch.zeros(2, 1 + self.columns + self.columns**2, dtype=torch.float64)
        self.add_state("moments_2L", zeros_2L, dist_reduce_fx=self._merged)

    def _merged(self, moments_W2L: Tensor) -> Tensor:
        labels = []
        for label in range(2):
            whole = Moments(self.columns, moments_W2L.device)
            for moments_2L in moments_W2L:
                whole.merge(Moments.from_flat(moments_2L[label], self.columns))
            labels.append(whole.flat())
        return torch.stack(labels)

    def update(self, hidden_BMD: Tensor, label_B: Tensor, mask_B: Tensor | None = None) -> None:
        """Adds the rows of a batch."""
        kept_B = torch.ones_like(label_B, dtype=torch.bool) if mask_B is None else mask_B > 0
        x_BP = hidden_BMD.flatten(1)
        for label in range(2):
            moments = Moments.from_flat(self.moments_2L[label], self.columns)
            moments.update(x_BP[kept_B & ((label_B > 0.5) == bool(label))])
            self.moments_2L[label] = moments.flat()

    def compute(self) -> CecReport:
        """The report over all ranks; must be called on all ranks."""
        classes = [Moments.from_flat(flat, self.columns) for flat in self.moments_2L]
        whole = Moments(len(classes[0].mean_P), classes[0].mean_P.device)
        for moments in classes:
            whole.merge(moments)
        r_PP, alive_P = correlation_matrix(whole)
        class_MM = [block_means(np.abs(correlation_matrix(moments)[0]), self.experts) for moments in classes]
        matrix_MM = block_means(np.abs(r_PP), self.experts)
        variance_P = whole.scatter_PP.diagonal().cpu().numpy() / max(float(whole.rows), 1)
        variance_MD, alive_MD = variance_P.reshape(self.experts, -1), alive_P.reshape(self.experts, -1)
        return CecReport(
            cec=over_pairs(matrix_MM),
            floor=sampling_floor(float(whole.rows)),
            matrix=matrix_MM.tolist(),
            cka=_cka(whole.scatter_PP.cpu().numpy(), self.experts).tolist(),
            by_class=[over_pairs(matrix) for matrix in class_MM],
            by_class_floor=[sampling_floor(float(moments.rows)) for moments in classes],
            by_class_ceiling=[float(np.diagonal(matrix).mean()) for matrix in class_MM],
            within_class=over_pairs(block_means(np.abs(correlation_matrix(_pooled(classes))[0]), self.experts)),
            dead=[int(count) for count in (~alive_MD).sum(1)],
            variance=[float(v[a].mean()) if a.any() else 0.0 for v, a in zip(variance_MD, alive_MD, strict=True)],
            rows=int(whole.rows),
        )


def _gathered(state: Tensor, group: Any = None) -> list[Tensor]:
    parts = [torch.empty_like(state) for _ in range(world_size())]
    if world_size() == 1:
        return [state]
    dist.all_gather(parts, state)
    return parts


def sampling_floor(rows: float) -> float:
    """Expected |r| of independent columns with this number of rows."""
    return math.sqrt(2 / (math.pi * (rows - 1))) if rows > 1 else math.nan


def _pooled(classes: list[Moments]) -> Moments:
    """Moments with the sum of the scatters around the mean of each class."""
    pooled = Moments(len(classes[0].mean_P), classes[0].mean_P.device)
    for moments in classes:
        pooled.scatter_PP += moments.scatter_PP
        pooled.mean_P += moments.mean_P * moments.rows
        pooled.rows = pooled.rows + moments.rows
    pooled.mean_P /= pooled.rows.clamp(min=1)
    return pooled


def correlation_matrix(moments: Moments) -> tuple[np.ndarray, np.ndarray]:
    """Pearson's r of all columns, [P, P] float64, 0 for columns without variance; and a mask of the columns with variance, [P] bool."""
    scatter_PP, mean_P = moments.scatter_PP.cpu().numpy(), moments.mean_P.cpu().numpy()
    sums_P = scatter_PP.diagonal()
    alive_P = sums_P > DEAD_RELATIVE_VARIANCE * float(moments.rows) * mean_P**2 + np.finfo(np.float32).tiny
    inverse_P = np.where(alive_P, 1 / np.sqrt(np.where(alive_P, sums_P, 1)), 0)
    return scatter_PP * inverse_P[:, None] * inverse_P[None, :], alive_P


def block_means(x_PP: np.ndarray, experts: int) -> np.ndarray:
    width = len(x_PP) // experts
    return x_PP.reshape(experts, width, experts, width).mean((1, 3))


def over_pairs(x_MM: np.ndarray) -> float:
    """The mean over pairs of different experts; 0 if there is only one expert."""
    pairs = x_MM[np.triu_indices(len(x_MM), 1)]
    return float(pairs.mean()) if pairs.size else 0.0


def _cka(scatter_PP: np.ndarray, experts: int) -> np.ndarray:
    squares_MM = block_means(scatter_PP**2, experts)
    own_M = np.sqrt(np.diagonal(squares_MM))
    scale_MM = np.outer(own_M, own_M)
    return np.divide(squares_MM, scale_MM, out=np.zeros_like(squares_MM), where=scale_MM > 0)
