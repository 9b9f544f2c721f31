"""Inspects, compares and exports checkpoints, a block of rows at a time, so that memory does not grow with the tables. Does not need
torch."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from dmoe.checkpoint.contents import Contents
from dmoe.checkpoint.index import verify_checkpoint
from dmoe.checkpoint.tensors import NAMES, write_tensors
from dmoe.errors import one_line
from dmoe.finite import require_finite
from dmoe.names import file_name, natural_key
from dmoe.storage.paths import PATHS, inside, write_atomic


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
        lines.append(f"{one_line(name):<24}{rows:>14,}{columns:>9}{len(contents.pieces[name]):>8}")
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
            part = "dense" if name in contents.dense else _table_file(contents.pieces[name][0].table)
            groups.setdefault(inside(output, f"{part}.safetensors"), []).append(name)
    metadata = {"format": "pt", "made_from": folder, "step": str(contents.index.progress.get("step"))}
    size = 0
    for path, group in groups.items():
        plain = {name: name.removeprefix("model/") if name not in contents.pieces else name for name in group}
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
