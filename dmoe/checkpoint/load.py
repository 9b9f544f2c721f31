"""Loads a checkpoint into a sharded model. Every rank reads its part. Plan, layout and number of ranks may differ from those when saved."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dmoe.checkpoint.contents import Contents, name_of
from dmoe.checkpoint.index import DENSE
from dmoe.checkpoint.interfaces import OptimizerStates
from dmoe.checkpoint.tensors import NAMES
from dmoe.errors import UserError
from dmoe.model.embedding.tables import Table
from dmoe.sharding.plan.local_shards import LocalShard, local_shards


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
    contents = check_fits(folder, tables, dense, grown)
    for shard in local_shards(model, tables):
        _load_shard(contents, shard, optimizers)
    _load_dense(contents, dense, optimizers)
    return contents.index.progress


def check_fits(folder: str, tables: Sequence[Table], dense: nn.Module, grown: bool = False) -> Contents:
    """Checks, before memory is allocated, that a checkpoint fits the model, by the shapes of tables and parameters.

    Args:
        dense: the dense part of the model, perhaps on the meta device.

    Returns:
        The contents of the checkpoint.

    Raises:
        UserError: the checkpoint is damaged, or belongs to another model; names the difference.
    """
    contents = Contents(folder)
    mine = {table.logical_name(s): (table.rows, s.dim) for table in tables for s in table.sections}
    for name in sorted(mine.keys() | contents.index.tables.keys()):
        there, here = contents.index.tables.get(name), mine.get(name)
        if there != here and not (grown and there and here and there[0] <= here[0] and there[1] == here[1]):
            raise UserError(f"{folder}: table '{name}' is {_size(there)} there and {_size(here)} in this model")
    kept = {name: _form(entry.dtype, entry.shape) for name, entry in contents.dense.items()}
    kept = {name: form for name, form in kept.items() if name.startswith("model/")}
    forms = {f"model/{name}": _form(_dtype(value), value.shape) for name, value in dense.state_dict().items()}
    for name in sorted(kept.keys() | forms.keys()):
        if kept.get(name) != forms.get(name):
            found = [found.get(name, "absent") for found in (kept, forms)]
            raise UserError(f"{folder}: parameter '{name.removeprefix('model/')}' is {found[0]} there and {found[1]} in this model")
    return contents


def _form(dtype: str, shape: Sequence[int]) -> str:
    return f"{dtype} {list(shape)}"


def _dtype(tensor: Tensor) -> str:
    """The dtype of a tensor by its name in safetensors."""
    return NAMES[np.dtype(str(tensor.dtype).removeprefix("torch."))]


def _size(size: tuple[int, int] | None) -> str:
    return "absent" if size is None else f"{size[0]:,} x {size[1]}"


def _load_dense(contents: Contents, dense: nn.Module, optimizers: OptimizerStates | None) -> None:
    kept = {name: torch.from_numpy(np.array(contents.file(DENSE).rows(name))) for name in contents.dense}
    dense.load_state_dict(_below(kept, "model/"))
    if optimizers is not None:
        try:
            optimizers.load_dense_state(_below(kept, "optimizer/"))
        except UserError as error:
            raise UserError(f"{contents.folder}: {error}") from None
        progress = contents.index.progress
        optimizers.set_steps(progress["step"] + progress.get("steps_before", 0))


@torch.no_grad()
def _load_shard(contents: Contents, shard: LocalShard, optimizers: OptimizerStates | None) -> None:
    targets: dict[str, Tensor] = {"weight": shard.weight}
    if optimizers is not None:
        targets |= optimizers.states_of(shard)
    for section, left, columns in shard.pieces():
        table = shard.table.logical_name(section)
        for state, target in targets.items():
            view = target[:, columns] if target.dim() == 2 else target
            name, right, filled = name_of(table, state), left + columns.stop - columns.start, 0
            fits = contents.dims(name) == view.dim()
            for place, part in contents.parts(name, shard.row, shard.row + len(view), left, right) if fits else ():
                numbers = torch.from_numpy(np.array(part))
                if numbers.dtype != view.dtype:
                    raise UserError(f"{contents.folder}: table '{table}': {state} is {numbers.dtype} there and {view.dtype} in this model")
                view[place].copy_(numbers)
                filled += part.size
            # If a table has grown, a shard may hold new rows only. A checkpoint of another optimizer is refused in this case too.
            expected = view[: max(contents.index.tables[table][0] - shard.row, 0)].numel()
            if filled != expected or not fits:
                raise UserError(
                    f"{contents.folder}: table '{table}': the checkpoint has no whole state '{state}' of this shape;"
                    " was it another optimizer.tables.kind's?"
                )


def _below(kept: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in kept.items() if name.startswith(prefix)}
