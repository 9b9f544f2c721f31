"""Inspects, compares and exports checkpoints, a block of rows at a time, so that memory does not grow with the tables. Does not need
torch."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from dmoe.checkpoint.index import DENSE, INDEX, Piece, read_index, step_of, verify_checkpoint
from dmoe.checkpoint.tensors import NAMES, TensorFile, write_tensors
from dmoe.errors import UserError, one_line
from dmoe.finite import require_finite
from dmoe.names import file_name, natural_key
from dmoe.storage.paths import PATHS, inside, join, write_atomic

BLOCK_BYTES = 64 << 20


def newest(path: str) -> str:
    """The checkpoint at `path`, or the newest checkpoint of the run at `path`.

    Raises:
        UserError: there is neither.
    """
    if PATHS.exists(join(path, INDEX)):
        return path
    folder = inside(path, "checkpoints")
    names = sorted(PATHS.ls(folder)) if PATHS.exists(folder) else []
    found = [name for name in names if step_of(name) is not None and PATHS.exists(join(folder, name, INDEX))]
    if not found:
        raise UserError(f"{path}: neither a checkpoint (no {INDEX}) nor a run with one (no checkpoints/step-*/{INDEX})")
    return inside(folder, found[-1])


class Contents:
    """The tensors of a checkpoint by logical name, joined from their pieces.

    Tables are named `C7/0` and `C7/0:sum` (a state); tensors of the dense part as in its file, `model/...` and `optimizer/...`.
    """

    def __init__(self, folder: str) -> None:
        self.folder, self.index = folder, read_index(folder)
        self._files: dict[str, TensorFile] = {}
        self._pieces: dict[str, list[Piece]] = {}
        for piece in self.index.pieces:
            name = piece.table if piece.state == "weight" else f"{piece.table}:{piece.state}"
            self._pieces.setdefault(name, []).append(piece)
        self.dense = self.file(DENSE).entries

    def file(self, name: str) -> TensorFile:
        if name not in self._files:
            self._files[name] = TensorFile(inside(self.folder, name))
        return self._files[name]

    def names(self, states: bool = True) -> list[str]:
        """Tables first, then the dense part."""
        tables = sorted(self._pieces, key=lambda name: (natural_key(name), name))
        names = tables + list(self.dense)
        return names if states else [name for name in names if not self._is_state(name)]

    def _is_state(self, name: str) -> bool:
        return self._pieces[name][0].state != "weight" if name in self._pieces else name.startswith("optimizer/")

    def shape(self, name: str) -> tuple[int, ...]:
        if name not in self._pieces:
            return self.dense[name].shape
        rows, columns = self.index.tables[self._pieces[name][0].table]
        return (rows, columns) if self._pieces[name][0].columns else (rows,)

    def dtype(self, name: str) -> np.dtype[Any]:
        return self.rows(name, 0, 1).dtype

    def rows(self, name: str, low: int, high: int) -> np.ndarray:
        """Rows [low, high) of a table; all of a dense tensor."""
        if name not in self._pieces:
            return self.file(DENSE).rows(name)
        shape, out = self.shape(name), None
        for piece in self._pieces[name]:
            first, last = max(low, piece.row), min(high, piece.row + piece.rows)
            if first >= last:
                continue
            part = self.file(piece.file).rows(piece.key, first - piece.row, last - piece.row)
            if part.shape != ((last - first, piece.columns) if piece.columns else (last - first,)):
                raise UserError(f"{join(self.folder, piece.file)}: tensor '{piece.key}' has another shape than the index says")
            if out is None:
                out = np.empty((min(high, shape[0]) - low, *shape[1:]), part.dtype)
            elif out.dtype != part.dtype:
                raise UserError(f"{self.folder}: table '{piece.table}' is stored in two dtypes")
            out[(slice(first - low, last - low), *([slice(piece.column, piece.column + piece.columns)] if piece.columns else []))] = part
        assert out is not None, "an index whose tables are whole has a piece for every row"
        return out

    def blocks(self, name: str) -> Iterator[np.ndarray]:
        """A tensor in blocks of rows."""
        if name not in self._pieces:
            yield self.rows(name, 0, 0)
            return
        shape = self.shape(name)
        step = max(BLOCK_BYTES // (int(np.prod(shape[1:])) * 8), 1)
        for low in range(0, shape[0], step):
            yield self.rows(name, low, min(low + step, shape[0]))


def inspect(folder: str) -> str:
    """A description of a checkpoint, as text."""
    contents = Contents(folder)
    index = contents.index
    progress = index.progress
    numbers = sum(rows * columns for rows, columns in index.tables.values())
    dense = sum(int(np.prod(entry.shape)) for name, entry in contents.dense.items() if name.startswith("model/"))
    size = sum(size for size, _ in index.files.values())
    lines = [
        folder,
        f"step {progress.get('step')}, epoch {progress.get('epoch')}, row {progress.get('row')} of it; {_best(progress)}",
        f"{len(index.tables)} tables of {numbers:,} numbers with states {', '.join(s for s in index.states if s != 'weight') or 'none'};"
        f" {dense:,} dense parameters; {size:,} bytes in {len(index.files)} files",
        "",
        f"{'table':<24}{'rows':>14}{'columns':>9}{'pieces':>8}",
    ]
    for name, (rows, columns) in sorted(index.tables.items(), key=lambda item: natural_key(item[0])):
        lines.append(f"{one_line(name):<24}{rows:>14,}{columns:>9}{len(index.of(name, 'weight')):>8}")
    return "\n".join(lines)


def _best(progress: dict[str, Any]) -> str:
    if progress.get("best_step") is None:
        return "no validation yet"
    what = ("AUC", progress.get("best_auc")) if progress.get("best_auc") is not None else ("logloss", progress.get("best_logloss"))
    return f"best validation {what[0]} {what[1]} at step {progress['best_step']}"


def verify(folder: str) -> str:
    """Verifies a checkpoint; returns a line that says it is sound.

    Raises:
        UserError: it is not sound; names the file.
    """
    index = verify_checkpoint(folder)
    size = sum(size for size, _ in index.files.values())
    return f"{folder}: sound: {len(index.files)} files, {size:,} bytes, step {index.progress.get('step')}"


def export(folder: str, output: str, per_table: bool, states: bool) -> str:
    """Verifies a checkpoint and writes it as plain safetensors; returns a line about what was written.

    Raises:
        UserError: the checkpoint is damaged, or holds a number that is not finite.
    """
    verify_checkpoint(folder)
    contents = Contents(folder)
    names = contents.names(states)
    groups = {output: names}
    if per_table:
        PATHS.mkdirs(output)
        groups = {}
        for name in names:
            part = "dense" if name in contents.dense else _table_file(contents._pieces[name][0].table)
            groups.setdefault(inside(output, f"{part}.safetensors"), []).append(name)
    metadata = {"format": "pt", "made_from": folder, "step": str(contents.index.progress.get("step"))}
    size = 0
    for path, group in groups.items():
        plain = {name: name.removeprefix("model/") if name not in contents._pieces else name for name in group}
        entries = [(plain[name], NAMES[contents.dtype(name)], contents.shape(name)) for name in group]
        chunks = (block for name in group for block in _finite_blocks(contents, name))
        with write_atomic(path) as file:
            size += write_tensors(file, entries, chunks, metadata)[0]
    return f"{output}: {len(names)} tensors, {size:,} bytes in {len(groups)} file(s)"


def _finite_blocks(contents: Contents, name: str) -> Iterator[np.ndarray]:
    row = 0
    for block in contents.blocks(name):
        yield require_finite(block, f"{contents.folder}: {name}", row)
        row += np.atleast_1d(block).shape[0]


def diff(a: str, b: str, tolerance: float) -> tuple[list[str], bool]:
    """One line for each tensor that differs by more than the tolerance, and whether any does."""
    left, right = Contents(a), Contents(b)
    mine, theirs = left.names(), right.names()
    lines = [f"{name}: only in {a if name in set(mine) else b}" for name in sorted(set(mine) ^ set(theirs))]
    worst = 0.0
    for name in [name for name in mine if name in set(theirs)]:
        if left.shape(name) != right.shape(name):
            lines.append(f"{name}: {list(left.shape(name))} and {list(right.shape(name))}")
            continue
        largest, scale, equal = 0.0, 0.0, True
        for x, y in zip(left.blocks(name), right.blocks(name), strict=True):
            if x.size:
                equal = equal and bool(np.array_equal(x, y))
                with np.errstate(invalid="ignore"):
                    largest = max(largest, float(np.nan_to_num(np.abs(x.astype(np.float64) - y), nan=np.inf).max()))
                scale = max(scale, float(np.abs(x).max()))
        relative = largest / max(scale, 1e-30)
        worst = max(worst, relative)
        if not equal and relative > tolerance:
            lines.append(f"{name}: largest difference {largest:.3g}, relative {relative:.3g}")
    differ = bool(lines)
    shared = len(set(mine) & set(theirs))
    bound = "" if differ else f" within {tolerance:g}" if tolerance else " bit for bit"
    lines.append(f"{shared} tensors compared: {'they differ' if differ else 'equal' + bound} (largest relative difference {worst:.3g})")
    return lines, differ


def _table_file(table: str) -> str:
    """The file name for a table, such as `C7-0` for C7/0."""
    feature, _, table_set = table.rpartition("/")
    return file_name(f"{feature}-{table_set}" if feature else table)
