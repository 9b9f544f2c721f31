"""Embedding rows of an exported scorer, as its file stores them.

Shapes: R rows, S table sets, C columns of all sets, N rows that are looked up, K dims of a set.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dmoe.checkpoint.tensors import TensorFile
from dmoe.errors import UserError
from dmoe.model.product_quantisation import BLOCK, CENTROIDS, codebooks_of
from dmoe.serve.format import DTYPES, codebook_of, scale_of


class Rows:
    """A matrix of rows in which table sets lie side by side; it stays in the file until a row is looked up.

    Args:
        file: `tables.safetensors`.
        name: of the matrix; int8 rows have a scale a row and set beside it, quantised ones their codebooks.
        counts: rows of each feature.
        dims: of each set.
        kind: fp32, fp16, int8 or pq.

    Raises:
        UserError: the file has another matrix, or none.
    """

    def __init__(self, file: TensorFile, name: str, counts: Sequence[int], dims: Sequence[int], kind: str) -> None:
        self.dims, count = list(dims), sum(counts)
        self.blocks = [-(-dim // BLOCK) for dim in dims]
        width = sum(self.blocks) if kind == "pq" else sum(dims)
        self.rows_RC = _tensor(file, name, (count, width), DTYPES[kind])
        self.scale_RS = _tensor(file, scale_of(name), (count, len(dims)), "F32") if kind == "int8" else None
        self.codebook: Tensor | None = None
        if kind == "pq":
            books = codebooks_of(counts)
            self.codebook = _tensor(file, codebook_of(name), ((max(books) + 1) * width * CENTROIDS, BLOCK), "F32")
            self.ends_F, self.first_F = torch.tensor(counts).cumsum(0), torch.tensor(books) * width
            self.block_J = torch.arange(width)

    @property
    def nbytes(self) -> int:
        return self.rows_RC.nbytes + sum(one.nbytes for one in (self.scale_RS, self.codebook) if one is not None)

    def __call__(self, row: Tensor) -> list[Tensor]:
        """[..., K] of each set, float32, of rows [...]."""
        if self.codebook is not None:
            return self._decoded(row, self.codebook)
        sets = list(self.rows_RC[row].float().split(self.dims, -1))
        if self.scale_RS is None:
            return sets
        return [x * scale for x, scale in zip(sets, self.scale_RS[row].split(1, -1), strict=True)]

    def _decoded(self, row: Tensor, codebook: Tensor) -> list[Tensor]:
        first = self.first_F[torch.bucketize(row.contiguous(), self.ends_F, right=True)]
        code = (first.unsqueeze(-1) + self.block_J) * CENTROIDS + self.rows_RC[row]
        sets = codebook[code].split(self.blocks, -2)
        return [x.flatten(-2)[..., :dim] for x, dim in zip(sets, self.dims, strict=True)]


class LightRows:
    """Rows of a light multi-embedding: one that all sets share, and of the first ids of each feature one more of each set.

    Args:
        shared: one set.
        private: of the ids below `bound_F`, feature after feature.
        bound_F: ids of each feature that have private rows.
    """

    def __init__(self, shared: Rows, private: Rows, bound_F: np.ndarray) -> None:
        self.shared, self.private = shared, private
        self.bound_F = torch.from_numpy(bound_F)
        self.offset_F = self.bound_F.cumsum(0) - self.bound_F

    @property
    def nbytes(self) -> int:
        return self.shared.nbytes + self.private.nbytes

    def __call__(self, row: Tensor, ids: Tensor, feature: int | slice) -> list[Tensor]:
        """[..., K] of each set.

        Args:
            row: of the shared matrix.
            ids: [...] those of `feature`, or [..., F] of all.
        """
        (shared,) = self.shared(row)
        own = ids < self.bound_F[feature]
        found = self.private((ids + self.offset_F[feature])[own])
        sets = []
        for x_NK in found:
            whole = shared.clone()
            whole[own] += x_NK
            sets.append(whole)
        return sets


def _tensor(file: TensorFile, name: str, shape: tuple[int, int], dtype: str) -> Tensor:
    entry: Any = file.entries.get(name)
    if entry is None or entry.shape != shape or entry.dtype != dtype:
        raise UserError(f"{file.path}: '{name}' is not {dtype} {list(shape)}; export it again")
    with warnings.catch_warnings():
        # The file stays mapped and is never written: tables larger than memory are read as they are needed.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(file.rows(name))
