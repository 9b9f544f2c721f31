"""Embedding look-ups in the tables of an exported scorer.

Shapes: R rows, S table sets, C columns of all sets, N looked-up rows, K dims of a set.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dmoe.checkpoint.tensors import TensorFile
from dmoe.errors import UserError
from dmoe.model.embedding.own_hash import hashed_rows
from dmoe.model.embedding.product_quantization import BLOCK, CENTROIDS, codebooks_of
from dmoe.serve.export.format import DTYPES, ScorerFile, codebook_of, scale_of


class Rows:
    """A memory-mapped matrix of rows with all table sets side by side.

    Args:
        file: `tables.safetensors`.
        name: name of the matrix. The file also has the scales of int8 rows (for each row and set) or the codebooks of pq rows.
        counts: number of rows of each feature.
        dims: dim of each set.
        kind: fp32, fp16, int8 or pq.

    Raises:
        UserError: the matrix is missing, or has another shape or type.
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
        """Looks up rows [...]; returns [..., K] float32 for each set."""
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


class FullRows:
    """Tables with one row, of all sets, for each id of each feature.

    Args:
        rows: the rows of all features one below the other.
        counts: number of ids of each feature.
    """

    def __init__(self, rows: Rows, counts: Sequence[int]) -> None:
        self.rows, self.offset_F = rows, _offsets(counts)
        self._offset_F, self._rows_RC = self.offset_F.numpy(), rows.rows_RC.numpy()

    @property
    def nbytes(self) -> int:
        return self.rows.nbytes

    def __call__(self, ids: Tensor, feature: int | slice) -> list[Tensor]:
        """Looks up ids [...] of one feature, or [..., F] of all features; returns [..., K] for each set."""
        return self.rows(ids + self.offset_F[feature])

    def side_by_side(self, ids_BF: np.ndarray, out: np.ndarray | None = None) -> np.ndarray | None:
        """Looks up all features and sets as one array [B, F, C] float32; None for pq rows.

        `take` of numpy is several times as fast as look-ups in torch.

        Args:
            ids_BF: ids that the tables have.
            out: where fp32 rows are written, [at least B, F, C] float32. Memory that is used again is in the cache of a core.
        """
        if self.rows.codebook is not None:
            return None
        place_BF = ids_BF + self._offset_F
        if out is not None and self._rows_RC.dtype == np.float32:
            # With another mode, numpy writes into memory of its own first.
            return self._rows_RC.take(place_BF, 0, out[: len(ids_BF)], "clip")
        x_BFC = self._rows_RC.take(place_BF, 0).astype(np.float32, copy=False)
        if self.rows.scale_RS is not None:
            scale_BFS = self.rows.scale_RS.numpy().take(place_BF, 0)
            for number, part in enumerate(np.split(x_BFC, np.cumsum(self.rows.dims)[:-1], axis=2)):
                part *= scale_BFS[:, :, number : number + 1]
        return x_BFC


class LightRows:
    """Tables of a light multi-embedding: all sets share a row for each id. The first ids of each feature also have a private row in each
    set, which is added to the shared one.

    Args:
        shared: one set with rows for all ids.
        private: all sets, with rows for the first ids of each feature.
        counts: number of ids of each feature.
        bounds: number of ids of each feature with private rows.
    """

    def __init__(self, shared: Rows, private: Rows, counts: Sequence[int], bounds: Sequence[int]) -> None:
        self.shared, self.private, self.offset_F = shared, private, _offsets(counts)
        self.bound_F, self.private_offset_F = torch.tensor(bounds), _offsets(bounds)

    @property
    def nbytes(self) -> int:
        return self.shared.nbytes + self.private.nbytes

    def __call__(self, ids: Tensor, feature: int | slice) -> list[Tensor]:
        """Like `FullRows`."""
        (shared,) = self.shared(ids + self.offset_F[feature])
        own = ids < self.bound_F[feature]
        sets = []
        for x_NK in self.private((ids + self.private_offset_F[feature])[own]):
            whole = shared.clone()
            whole[own] += x_NK
            sets.append(whole)
        return sets


class HashedRows:
    """Tables of a hashed multi-embedding: all sets share the rows, and each set chooses the row of an id by its own hash. A feature with no
    more ids than rows is not hashed.

    Args:
        rows: one set.
        cardinalities: number of ids of each feature.
        counts: number of rows of each feature.
        sets: S.
    """

    def __init__(self, rows: Rows, cardinalities: Sequence[int], counts: Sequence[int], sets: int) -> None:
        self.rows, self.offset_F, self.sets = rows, _offsets(counts), sets
        self.hashed_F = torch.tensor(counts) < torch.tensor(cardinalities)
        self.count_F = torch.tensor(counts)

    @property
    def nbytes(self) -> int:
        return self.rows.nbytes

    def __call__(self, ids: Tensor, feature: int | slice) -> list[Tensor]:
        """Like `FullRows`."""
        made = [hashed_rows(ids, number, self.count_F[feature]).where(self.hashed_F[feature], ids) for number in range(self.sets)]
        return [x for rows in made for x in self.rows(rows + self.offset_F[feature])]


def open_rows(file: TensorFile, about: ScorerFile) -> FullRows | LightRows | HashedRows:
    """Opens the tables of a scorer.

    Raises:
        UserError: the tables in the file are not those described in scorer.json.
    """
    counts, embedding = [feature.cardinality for feature in about.features], about.model.embedding
    if embedding.sets == "light":
        bounds = [min(count, embedding.private_ids) for count in counts]
        shared, private = (
            Rows(file, "rows", counts, about.set_dims[:1], about.rows),
            Rows(file, "private", bounds, about.set_dims, about.rows),
        )
        return LightRows(shared, private, counts, bounds)
    if embedding.sets == "hashed":
        rows = [min(count, embedding.hashed_rows) for count in counts]
        return HashedRows(Rows(file, "rows", rows, about.set_dims[:1], about.rows), counts, rows, len(about.set_dims))
    return FullRows(Rows(file, "rows", counts, about.set_dims, about.rows), counts)


def _offsets(counts: Sequence[int]) -> Tensor:
    """The first row of each feature, [F]."""
    count_F = torch.tensor(counts)
    return count_F.cumsum(0) - count_F


def _tensor(file: TensorFile, name: str, shape: tuple[int, int], dtype: str) -> Tensor:
    entry: Any = file.entries.get(name)
    if entry is None or entry.shape != shape or entry.dtype != dtype:
        raise UserError(f"{file.path}: '{name}' is not {dtype} {list(shape)}; export it again")
    with warnings.catch_warnings():
        # The file is memory-mapped and never written, so pages are loaded on demand and tables may be larger than memory.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(file.rows(name))
