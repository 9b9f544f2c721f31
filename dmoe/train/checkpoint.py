"""Checkpoints that belong to the model, not to a plan, a layout or a number of ranks.

A checkpoint is a folder of safetensors files and `index.json`, which is written last: without it there is no checkpoint. Tables are
keyed by logical table (`C7/0`: feature C7, table set 0) in pieces, rectangles of rows and columns, that any rank can read its part
of. Nothing in it is unpickled.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import safetensors
import safetensors.torch
import torch
import torch.distributed as dist
from torch import Tensor, nn

from dmoe.distributed import broadcast_object, rank, world_size
from dmoe.errors import UserError
from dmoe.model.tables import Table
from dmoe.paths import PATHS, join
from dmoe.sharding.shards import LocalShard, local_shards
from dmoe.train.optimizers import Optimizers

FORMAT, VERSION, INDEX = "dmoe-checkpoint", 1, "index.json"
FILE_BYTES = 256 << 20
"""A rank writes its tables in files of about this size, so that a checkpoint never needs a second copy of them in memory."""


@dataclass(frozen=True)
class Piece:
    """A rectangle of a logical table's weight or state, and the file and key that hold it. Row-wise states have columns 0."""

    table: str
    state: str
    row: int
    column: int
    rows: int
    columns: int
    file: str
    key: str


def save_checkpoint(
    folder: str, model: nn.Module, tables: list[Table], dense: nn.Module, optimizers: Optimizers, progress: dict[str, Any]
) -> None:
    """Writes this rank's part; returns on every rank once the whole is published.

    Args:
        folder: of this checkpoint.
        dense: the data-parallel part, whose state_dict is kept.
        progress: plain data: step, position, schedule and the like.

    Raises:
        UserError: on every rank, where any rank could not write; names it.
    """
    if rank() == 0:
        PATHS.mkdirs(folder)
        if PATHS.exists(join(folder, INDEX)):
            PATHS.rm(join(folder, INDEX))
    _barrier()
    pieces: list[Piece] = []
    files: dict[str, dict[str, Any]] = {}
    problem = None
    try:
        for name, group in _files_of(_table_pieces(model, tables, optimizers)):
            tensors = {key: tensor.detach().cpu().contiguous() for key, tensor, _ in group}
            files[name] = _write(folder, name, safetensors.torch.save(tensors))
            pieces += [Piece(*(*where, name, key)) for key, _, where in group]
        if rank() == 0:
            kept = {f"model/{name}": value for name, value in dense.state_dict().items()}
            kept |= {f"optimizer/{name}": value for name, value in optimizers.dense_state().items()}
            tensors = {name: value.detach().cpu().contiguous() for name, value in kept.items()}
            files["dense.safetensors"] = _write(folder, "dense.safetensors", safetensors.torch.save(tensors))
    except OSError as error:
        problem = f"rank {rank()}: cannot write the checkpoint {folder}: {(error.strerror or str(error)).lower()}"
    parts = _gather((pieces, files, problem))
    problems = [part[2] for part in parts if part[2]]
    if problems:
        raise UserError(f"{problems[0]}; free some space or change run.dir, then --resume")
    if rank() == 0:
        index = {
            "format": FORMAT,
            "version": VERSION,
            "tables": {table.logical_name(s): [table.rows, s.dim] for table in tables for s in table.sections},
            "pieces": [list(vars(piece).values()) for part in parts for piece in part[0]],
            "files": {name: entry for part in parts for name, entry in part[1].items()},
            "progress": progress,
        }
        index["checksum"] = _checksum(index)
        try:
            _write(folder, INDEX, json.dumps(index).encode())
        except OSError as error:
            problem = f"cannot write {join(folder, INDEX)}: {(error.strerror or str(error)).lower()}"
    if problem := broadcast_object(problem):
        raise UserError(f"{problem}; free some space or change run.dir, then --resume")


def read_index(folder: str) -> dict[str, Any]:
    """The index of a checkpoint, checked against its own checksum.

    Raises:
        UserError: none there, torn, damaged, or of another version.
    """
    path = join(folder, INDEX)
    if not PATHS.exists(path):
        raise UserError(f"{folder}: no {INDEX}: not a finished checkpoint")
    try:
        with PATHS.open(path, "rb") as file:
            index = json.loads(file.read())
        sound = index["format"] == FORMAT and index["checksum"] == _checksum(index)
        version = index["version"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UserError(f"{path}: damaged: not a checkpoint's index") from None
    if not sound:
        raise UserError(f"{path}: damaged: its checksum does not match")
    if version != VERSION:
        raise UserError(f"{path}: checkpoint version {version!r}, this dmoe reads version {VERSION}")
    return index


def verify_checkpoint(folder: str) -> dict[str, Any]:
    """The index, once every file is there and has the checksum that the index says."""
    index = read_index(folder)
    for name, entry in index["files"].items():
        path = join(folder, name)
        if not PATHS.exists(path):
            raise UserError(f"{path}: missing, but the checkpoint's index names it")
        digest, size = hashlib.sha256(), 0
        with PATHS.open(path, "rb") as file:
            while chunk := file.read(8 << 20):
                digest.update(chunk)
                size += len(chunk)
        if size != entry["bytes"] or digest.hexdigest() != entry["sha256"]:
            raise UserError(f"{path}: damaged: {size:,} bytes whose checksum is not the one in the index ({entry['bytes']:,} bytes)")
    return index


def load_checkpoint(folder: str, model: nn.Module, tables: list[Table], dense: nn.Module, optimizers: Optimizers | None) -> dict[str, Any]:
    """Loads this rank's part of a checkpoint, whatever plan, layout and number of ranks wrote it.

    Args:
        optimizers: None loads the weights only.

    Returns:
        The progress that was kept.

    Raises:
        UserError: damaged, or of another model; says what differs.
    """
    index = read_index(folder)
    mine = {table.logical_name(s): [table.rows, s.dim] for table in tables for s in table.sections}
    for name in sorted(mine.keys() | index["tables"].keys()):
        if mine.get(name) != index["tables"].get(name):
            raise UserError(f"{folder}: table '{name}' is {index['tables'].get(name)} there and {mine.get(name)} in this model")
    pieces: dict[tuple[str, str], list[Piece]] = {}
    for row in index["pieces"]:
        piece = Piece(*row)
        pieces.setdefault((piece.table, piece.state), []).append(piece)
    for shard in local_shards(model, tables):
        _load_shard(folder, shard, pieces, optimizers)
    with safetensors.safe_open(PATHS.get_local_path(join(folder, "dense.safetensors")), "pt") as file:
        kept = {name: file.get_tensor(name) for name in list(file.keys())}
    problem = dense.load_state_dict(_below(kept, "model/"), strict=False)
    if differs := [*problem.missing_keys, *problem.unexpected_keys]:
        raise UserError(f"{folder}: parameter '{differs[0]}' is in only one of the checkpoint and this model")
    if optimizers is not None:
        optimizers.load_dense_state(_below(kept, "optimizer/"))
        optimizers.set_steps(int(index["progress"]["step"]))
    return index["progress"]


def _load_shard(folder: str, shard: LocalShard, pieces: dict[tuple[str, str], list[Piece]], optimizers: Optimizers | None) -> None:
    targets: dict[str, Tensor] = {"weight": shard.weight}
    if optimizers is not None:
        targets |= optimizers.states_of(shard)
    for section, first_column, columns in shard.pieces():
        name = shard.table.logical_name(section)
        for state, target in targets.items():
            filled = 0
            view = target[:, columns] if target.dim() == 2 else target
            for piece in pieces.get((name, state), []):
                filled += _copy_overlap(folder, piece, view, shard.row, first_column)
            if filled != view.numel():
                raise UserError(f"{folder}: table '{name}': {state} is not whole in the checkpoint; was it another optimizer's?")


@torch.no_grad()
def _copy_overlap(folder: str, piece: Piece, view: Tensor, first_row: int, first_column: int) -> int:
    """Copies what a piece and a shard's view share; returns how many numbers that was."""
    low, high = max(piece.row, first_row), min(piece.row + piece.rows, first_row + len(view))
    left = max(piece.column, first_column) if view.dim() == 2 else 0
    right = min(piece.column + piece.columns, first_column + view.shape[1]) if view.dim() == 2 else 1
    if low >= high or left >= right:
        return 0
    with safetensors.safe_open(PATHS.get_local_path(join(folder, piece.file)), "pt") as file:
        rows = file.get_slice(piece.key)[low - piece.row : high - piece.row]
    if view.dim() == 1:
        view[low - first_row : high - first_row] = rows.to(view)
    else:
        part = rows[:, left - piece.column : right - piece.column]
        view[low - first_row : high - first_row, left - first_column : right - first_column] = part.to(view)
    return (high - low) * (right - left)


def _table_pieces(model: nn.Module, tables: list[Table], optimizers: Optimizers) -> Iterator[tuple[Tensor, tuple[Any, ...]]]:
    """Tensors of at most about FILE_BYTES with (table, state, row, column, rows, columns), of what this rank has to write."""
    for shard in local_shards(model, tables):
        if shard.replicated and rank() != 0:
            continue
        for section, first_column, columns in shard.pieces():
            name = shard.table.logical_name(section)
            for state, whole in {"weight": shard.weight, **optimizers.states_of(shard)}.items():
                view = whole[:, columns] if whole.dim() == 2 else whole
                width = view.shape[1] if view.dim() == 2 else 0
                step = max(FILE_BYTES // (max(width, 1) * view.element_size()), 1)
                for start in range(0, len(view), step):
                    part = view[start : start + step]
                    yield part, (name, state, shard.row + start, first_column if width else 0, len(part), width)


def _files_of(pieces: Iterator[tuple[Tensor, tuple[Any, ...]]]) -> Iterator[tuple[str, list[tuple[str, Tensor, tuple[Any, ...]]]]]:
    group: list[tuple[str, Tensor, tuple[Any, ...]]] = []
    size = number = 0
    for tensor, where in pieces:
        if group and size + tensor.numel() * tensor.element_size() > FILE_BYTES:
            yield f"tables-{rank():05d}-{number:05d}.safetensors", group
            group, size, number = [], 0, number + 1
        group.append(("|".join(str(part) for part in where[:4]), tensor, where))
        size += tensor.numel() * tensor.element_size()
    if group:
        yield f"tables-{rank():05d}-{number:05d}.safetensors", group


def _write(folder: str, name: str, content: bytes) -> dict[str, Any]:
    with PATHS.open(join(folder, name), "wb") as file:
        file.write(content)
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _checksum(index: dict[str, Any]) -> str:
    rest = {key: value for key, value in index.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _below(kept: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in kept.items() if name.startswith(prefix)}


def _barrier() -> None:
    if world_size() > 1:
        dist.barrier()


def _gather(value: Any) -> list[Any]:
    if world_size() == 1:
        return [value]
    parts: list[Any] = [None] * world_size()
    dist.all_gather_object(parts, value)
    return parts
