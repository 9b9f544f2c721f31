"""Saves a sharded model: every rank writes its part, and rank 0 publishes the checkpoint.

All functions except `write_part` must be called by all ranks together.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from dmoe.checkpoint.index import DENSE, INDEX, Index, Piece, write_index
from dmoe.checkpoint.interfaces import OptimizerStates
from dmoe.checkpoint.tensors import NAMES, write_tensors
from dmoe.distributed import on_rank_0, rank, world_size
from dmoe.errors import UserError, reason_of
from dmoe.model.embedding.tables import Table
from dmoe.sharding.plan.local_shards import local_shards
from dmoe.storage.paths import PATHS, join, write_atomic

FILE_BYTES = 256 << 20
"""Approximate size of a file of tables. A rank writes several files, so that it never needs a second copy of its tables in memory."""


class WeightsNotFinite(UserError):
    """A weight or state of the model is not finite, so the checkpoint is not written. Raised on all ranks."""


@dataclass(frozen=True)
class File:
    """The contents of a file to write: tensors by key, and the pieces of tables that they hold."""

    name: str
    tensors: dict[str, Tensor]
    pieces: tuple[Piece, ...]


@dataclass
class Part:
    """The pieces and files that a rank has written, or why it could not."""

    pieces: list[Piece]
    files: dict[str, tuple[int, str]]
    problem: str | None = None


def save_checkpoint(
    folder: str, model: nn.Module, tables: list[Table], dense: nn.Module, optimizers: OptimizerStates, progress: dict[str, Any]
) -> None:
    """Writes a checkpoint. Returns on every rank when it is published.

    Args:
        folder: of this checkpoint.
        dense: the data-parallel part, whose state_dict is saved.
        progress: step, position, schedule and so on, as plain data.

    Raises:
        UserError: on every rank, if some rank could not write; names the rank.
    """
    prepare(folder)
    publish(folder, write_part(folder, files_of(model, tables, dense, optimizers)), tables, progress)


def prepare(folder: str) -> None:
    """Creates the folder of the checkpoint, and removes files of an earlier attempt that was killed.

    Raises:
        UserError: on every rank, if this fails.
    """

    def empty() -> None:
        PATHS.mkdirs(folder)
        # The index first: a partly removed checkpoint must not look complete.
        names = PATHS.ls(folder)
        for name in [INDEX] * (INDEX in names) + [name for name in names if name != INDEX]:
            PATHS.rm(join(folder, name))

    _on_rank_0(folder, empty)


def write_part(folder: str, files: Iterator[File]) -> Part:
    """Writes the files of this rank. A thread may call it during training, with copies of the tensors."""
    part = Part([], {})
    try:
        for file in files:
            for key, tensor in file.tensors.items():
                if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                    where = key.rsplit("|", 3)[0]
                    part.problem = f"rank {rank()}: '{where}' is not finite, so the checkpoint {folder} is not kept"
                    return part
            with write_atomic(join(folder, file.name)) as out:
                part.files[file.name] = _write_file(out, file)
            part.pieces += file.pieces
    except OSError as error:
        part.problem = f"rank {rank()}: cannot write the checkpoint {folder}: {reason_of(error)}"
    return part


def publish(folder: str, part: Part, tables: list[Table], progress: dict[str, Any]) -> Index | None:
    """Publishes the parts of all ranks as one checkpoint. Returns the index on rank 0, None on others.

    Raises:
        UserError: on every rank, if some rank could not write. Then the files are removed, to free disk space.
    """
    parts = _gather(part)
    index = None

    def write() -> None:
        nonlocal index
        problems = [p.problem for p in parts if p.problem]
        if problems:
            for name in PATHS.ls(folder):
                with contextlib.suppress(OSError):
                    PATHS.rm(join(folder, name))
            raise UserError(problems[0])
        index = Index(
            tables={table.logical_name(s): (table.rows, s.dim) for table in tables for s in table.sections},
            pieces=tuple(piece for p in parts for piece in p.pieces),
            files={name: entry for p in parts for name, entry in p.files.items()},
            progress=progress,
        )
        write_index(folder, index)

    _on_rank_0(folder, write)
    return index


def republish(folder: str, index: Index | None, progress: dict[str, Any]) -> Index | None:
    """Atomically replaces the progress of a published checkpoint with the same weights."""

    def write() -> None:
        assert index is not None
        write_index(folder, Index(index.tables, index.pieces, index.files, progress))

    _on_rank_0(folder, write)
    return index


def files_of(model: nn.Module, tables: list[Table], dense: nn.Module, optimizers: OptimizerStates) -> Iterator[File]:
    """Yields the files of this rank. Their tensors are views of the model on its device."""
    group: dict[str, Tensor] = {}
    pieces: list[Piece] = []
    size = number = 0
    for tensor, where in _table_pieces(model, tables, optimizers):
        if group and size + tensor.nbytes > FILE_BYTES:
            yield File(pieces[0].file, group, tuple(pieces))
            group, pieces, size, number = {}, [], 0, number + 1
        key = "|".join(str(part) for part in where[:4])
        group[key] = tensor
        table, state, row, column, rows, columns = where
        pieces.append(Piece(table, state, row, column, rows, columns, f"tables-{rank():05d}-{number:05d}.safetensors", key))
        size += tensor.nbytes
    if group:
        yield File(pieces[0].file, group, tuple(pieces))
    if rank() == 0:
        kept = {f"model/{name}": value for name, value in dense.state_dict().items()}
        kept |= {f"optimizer/{name}": value for name, value in optimizers.dense_state().items()}
        yield File(DENSE, {name: value.detach() for name, value in kept.items()}, ())


def _table_pieces(model: nn.Module, tables: list[Table], optimizers: OptimizerStates) -> Iterator[tuple[Tensor, tuple[Any, ...]]]:
    """Yields the tensors that this rank writes, each of at most about FILE_BYTES, with (table, state, row, column, rows, columns)."""
    for shard in local_shards(model, tables):
        if shard.replicated and rank() != 0:
            continue
        for section, first_column, columns in shard.pieces():
            name = shard.table.logical_name(section)
            for state, whole in {"weight": shard.weight, **optimizers.states_of(shard)}.items():
                view = (whole[:, columns] if whole.dim() == 2 else whole).detach()
                width = view.shape[1] if view.dim() == 2 else 0
                step = max(FILE_BYTES // (max(width, 1) * view.element_size()), 1)
                for start in range(0, len(view), step):
                    part = view[start : start + step]
                    yield part, (name, state, shard.row + start, first_column if width else 0, len(part), width)


def _write_file(out: Any, file: File) -> tuple[int, str]:
    arrays: dict[str, np.ndarray] = {}
    entries = []
    for key, tensor in file.tensors.items():
        arrays[key] = tensor.cpu().numpy()
        entries.append((key, NAMES[arrays[key].dtype], tuple(tensor.shape)))
    return write_tensors(out, entries, arrays.values())


def _on_rank_0(folder: str, action: Callable[[], None]) -> None:
    """Runs an action on rank 0. If it fails, the error is raised on all ranks."""

    def guarded() -> None:
        try:
            action()
        except OSError as error:
            raise UserError(f"cannot write the checkpoint {folder}: {reason_of(error)}") from None

    try:
        on_rank_0(guarded)
    except UserError as error:
        if "is not finite" in str(error):
            raise WeightsNotFinite(str(error)) from None
        raise UserError(f"{error}; free some space or change run.dir, then --resume from the last checkpoint") from None


def _gather(part: Part) -> list[Part]:
    """Gathers the parts of all ranks on rank 0. Objects are pickled here, but only between ranks of this program."""
    if world_size() == 1:
        return [part]
    parts: list[Any] = [None] * world_size()
    dist.gather_object(part, parts if rank() == 0 else None)
    return parts if rank() == 0 else []
