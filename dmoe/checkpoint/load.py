"""Loads a checkpoint into a sharded model. Every rank reads its part. Plan, layout and number of ranks may differ from those when saved."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dmoe.checkpoint.index import DENSE, Index, Piece, read_index
from dmoe.checkpoint.interfaces import OptimizerStates
from dmoe.checkpoint.tensors import NAMES, TensorFile
from dmoe.errors import UserError
from dmoe.model.embedding.tables import Table
from dmoe.sharding.plan.local_shards import LocalShard, local_shards
from dmoe.storage.paths import inside


def load_checkpoint(
    folder: str, model: nn.Module, tables: list[Table], dense: nn.Module, optimizers: OptimizerStates | None, grown: bool = False
) -> dict[str, Any]:
    """Loads this rank's part of a checkpoint.

    Args:
        optimizers: None to load only the weights.
        grown: the tables of the model may have more rows than the checkpoint; the further rows are not changed.

    Returns:
        The progress in the checkpoint.

    Raises:
        UserError: the checkpoint is damaged, or belongs to another model or optimizer; names the difference.
    """
    index = check_fits(folder, tables, dense, grown)
    files = _Files(folder)
    for shard in local_shards(model, tables):
        _load_shard(index, shard, files, optimizers)
    _load_dense(folder, files, index, dense, optimizers)
    return index.progress


def check_fits(folder: str, tables: Sequence[Table], dense: nn.Module, grown: bool = False) -> Index:
    """Checks, before memory is allocated, that a checkpoint fits the model, by the shapes of tables and parameters.

    Args:
        dense: the dense part of the model, perhaps on the meta device.

    Returns:
        The index of the checkpoint.

    Raises:
        UserError: the checkpoint is damaged, or belongs to another model; names the difference.
    """
    index = read_index(folder)
    mine = {table.logical_name(s): (table.rows, s.dim) for table in tables for s in table.sections}
    for name in sorted(mine.keys() | index.tables.keys()):
        there, here = index.tables.get(name), mine.get(name)
        if there != here and not (grown and there and here and there[0] <= here[0] and there[1] == here[1]):
            raise UserError(f"{folder}: table '{name}' is {_size(there)} there and {_size(here)} in this model")
    kept = {name: _form(entry.dtype, entry.shape) for name, entry in TensorFile(inside(folder, DENSE)).entries.items()}
    kept = {name: form for name, form in kept.items() if name.startswith("model/")}
    forms = {f"model/{name}": _form(_dtype(value), value.shape) for name, value in dense.state_dict().items()}
    for name in sorted(kept.keys() | forms.keys()):
        if kept.get(name) != forms.get(name):
            found = [found.get(name, "absent") for found in (kept, forms)]
            raise UserError(f"{folder}: parameter '{name.removeprefix('model/')}' is {found[0]} there and {found[1]} in this model")
    return index


def _form(dtype: str, shape: Sequence[int]) -> str:
    return f"{dtype} {list(shape)}"


def _dtype(tensor: Tensor) -> str:
    """The dtype of a tensor by its name in safetensors."""
    return NAMES[np.dtype(str(tensor.dtype).removeprefix("torch."))]


def _size(size: tuple[int, int] | None) -> str:
    return "absent" if size is None else f"{size[0]:,} x {size[1]}"


class _Files:
    """The files of a checkpoint, each opened once."""

    def __init__(self, folder: str) -> None:
        self.folder, self.opened = folder, dict[str, TensorFile]()

    def __getitem__(self, name: str) -> TensorFile:
        if name not in self.opened:
            self.opened[name] = TensorFile(inside(self.folder, name))
        return self.opened[name]


def _load_dense(folder: str, files: _Files, index: Index, dense: nn.Module, optimizers: OptimizerStates | None) -> None:
    file = files[DENSE]
    kept = {name: torch.from_numpy(np.array(file.rows(name))) for name in file.entries}
    dense.load_state_dict(_below(kept, "model/"))
    if optimizers is not None:
        try:
            optimizers.load_dense_state(_below(kept, "optimizer/"))
        except UserError as error:
            raise UserError(f"{folder}: {error}") from None
        optimizers.set_steps(index.progress["step"] + index.progress.get("steps_before", 0))


def _load_shard(index: Index, shard: LocalShard, files: _Files, optimizers: OptimizerStates | None) -> None:
    targets: dict[str, Tensor] = {"weight": shard.weight}
    if optimizers is not None:
        targets |= optimizers.states_of(shard)
    for section, first_column, columns in shard.pieces():
        name = shard.table.logical_name(section)
        for state, target in targets.items():
            view = target[:, columns] if target.dim() == 2 else target
            kept = [piece for piece in index.of(name, state) if (view.dim() == 1) == (piece.columns == 0)]
            filled = sum(_copy_overlap(files, piece, view, shard.row, first_column) for piece in kept)
            # If a table has grown, a shard may hold new rows only. A checkpoint of another optimizer is refused in this case too.
            expected = view[: max(index.tables[name][0] - shard.row, 0)].numel()
            if filled != expected or not kept:
                raise UserError(
                    f"{files.folder}: table '{name}': the checkpoint has no whole state '{state}' of this shape;"
                    " was it another optimizer.tables.kind's?"
                )


@torch.no_grad()
def _copy_overlap(files: _Files, piece: Piece, view: Tensor, first_row: int, first_column: int) -> int:
    """Copies the overlap of a piece and a view of a shard; returns the number of copied elements."""
    low, high = max(piece.row, first_row), min(piece.row + piece.rows, first_row + len(view))
    left = max(piece.column, first_column) if view.dim() == 2 else 0
    right = min(piece.column + piece.columns, first_column + view.shape[1]) if view.dim() == 2 else 1
    if low >= high or left >= right:
        return 0
    file = files[piece.file]
    rows = file.rows(piece.key, low - piece.row, high - piece.row)
    entry = file.entries[piece.key]
    if entry.shape != ((piece.rows, piece.columns) if piece.columns else (piece.rows,)) or entry.dtype != _dtype(view):
        raise UserError(f"{file.path}: tensor '{piece.key}' has another shape than the index says, or another dtype than the model")
    if view.dim() == 1:
        view[low - first_row : high - first_row] = torch.from_numpy(np.array(rows)).to(view)
    else:
        part = np.ascontiguousarray(rows[:, left - piece.column : right - piece.column])
        target = view[low - first_row : high - first_row, left - first_column : right - first_column]
        target.copy_(torch.from_numpy(part if part.flags.writeable else part.copy()))
    return (high - low) * (right - left)


def _below(kept: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in kept.items() if name.startswith(prefix)}
