"""Exports a data set to npy files, in torchrec's layout of Criteo or with one file for each column, written through memory maps.

torchrec-npy: a split's part is `NAME_dense.npy` float32 [N, 13], `NAME_sparse.npy` int32 [N, 26] and `NAME_labels.npy` int32 [N, 1], as
torchrec.datasets.criteo.InMemoryBinaryCriteoIterDataPipe reads them and torchrec_dlrm names them. columns-npy: `SPLIT/label.npy` uint8,
`SPLIT/I1.npy` float32, `SPLIT/C1.npy` int32, ..., [N] each: what a KeyedJaggedTensor wants, with no transpose.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from dmoe.data.dataset.files import RowGroup, read_row_group, row_groups
from dmoe.data.dataset.manifest import CategoricalFeature, Manifest, Split, load_manifest
from dmoe.data.progress import Progress
from dmoe.errors import UserError
from dmoe.finite import require_finite
from dmoe.json_text import format_json
from dmoe.names import LABEL, file_name
from dmoe.storage.lock import alone
from dmoe.storage.paths import inside, naming, remove_files, write_text

Format = Literal["torchrec-npy", "columns-npy"]
TORCHREC_DENSE, TORCHREC_SPARSE = 13, 26
FILE, WORK = "export.json", ".work"
COLUMN_FILE = r".+\.npy"


@dataclass(frozen=True)
class _Part:
    """Rows first .. first + rows - 1 of a split. Its file names begin with `name`."""

    split: str
    name: str
    first: int
    rows: int


def export(data: str, output: str, layout: Format, rows_per_part: int = 0, workers: int = 0) -> dict[str, Any]:
    """Writes all splits that have rows; returns the contents of export.json. The files appear when all of them are complete.

    Args:
        rows_per_part: for torchrec-npy: rows of each file; 0 for one file for each split.
        workers: threads; 0 for one for each core.

    Raises:
        UserError: the data set does not fit the layout, or the output is not empty.
    """
    manifest = load_manifest(data)
    _check(manifest, data, output, layout, rows_per_part, workers)
    work = inside(output, WORK)
    with alone(work, output):
        try:
            said = _export(manifest, data, output, work, layout, rows_per_part, workers)
        finally:
            # Also if the disk is full: incomplete files are useless.
            shutil.rmtree(work, ignore_errors=True)
    return said


def _export(manifest: Manifest, data: str, output: str, work: str, layout: Format, rows_per_part: int, workers: int) -> dict[str, Any]:
    made = os.path.join(work, "export")
    shutil.rmtree(made, ignore_errors=True)
    os.makedirs(made)
    features = [one for one in manifest.categorical if layout == "columns-npy" or one.kind == "token"]
    parts = [part for name, split in manifest.splits.items() for part in _parts(name, split, layout, rows_per_part)]
    for part in parts:
        _write(data, manifest, features, part, made, layout, workers or os.cpu_count() or 1)
    said = _said(manifest, features, parts, layout)
    write_text(os.path.join(made, FILE), format_json(said, indent=1) + "\n")
    # export.json last: if it exists, the export is complete.
    for name in sorted(os.listdir(made), key=lambda name: name == FILE):
        target = inside(output, name)
        remove_files(target, COLUMN_FILE)
        if os.path.isdir(target):
            raise UserError(f"{target}: holds other files than an export's; name another --output")
        os.replace(os.path.join(made, name), target)
    return said


def _check(manifest: Manifest, data: str, output: str, layout: str, rows_per_part: int, workers: int) -> None:
    if "://" in output:
        raise UserError(
            f"--output {output}: npy files are written through memory maps, to a local or mounted folder; copy them up afterwards"
        )
    if os.path.exists(os.path.join(output, FILE)):
        raise UserError(f"--output {output}: holds an export already; name another folder")
    if rows_per_part < 0 or workers < 0:
        raise UserError("--rows-per-part and --workers: expected 0 or more")
    if rows_per_part and layout != "torchrec-npy":
        raise UserError(f"--rows-per-part: {layout} has one file a column of a split; it goes with torchrec-npy")
    if bags := [feature.name for feature in manifest.categorical if feature.multi_valued]:
        raise UserError(f"{data}: {', '.join(bags)}: multi-valued, which npy's fixed columns cannot hold; read the parquet shards")
    if manifest.weight or manifest.group:
        raise UserError(f"{data}: its rows have a weight or group column, which the npy layouts lack; read the parquet shards")
    tokens = [feature.name for feature in manifest.categorical if feature.kind == "token"]
    if layout == "torchrec-npy" and (len(manifest.dense), len(tokens)) != (TORCHREC_DENSE, TORCHREC_SPARSE):
        raise UserError(
            f"{data}: {len(manifest.dense)} dense and {len(tokens)} token features, but torchrec's layout of Criteo has"
            f" {TORCHREC_DENSE} and {TORCHREC_SPARSE}; use --format columns-npy"
        )
    if layout == "torchrec-npy" and not all(split.labelled for split in manifest.splits.values()):
        raise UserError(f"{data}: has no labels, which torchrec's layout needs; use --format columns-npy")


def _parts(name: str, split: Split, layout: str, rows_per_part: int) -> Iterator[_Part]:
    if layout == "columns-npy" or not rows_per_part:
        if split.rows:
            yield _Part(name, name, 0, split.rows)
        return
    for number, first in enumerate(range(0, split.rows, rows_per_part)):
        yield _Part(name, f"{name}_{number}", first, min(rows_per_part, split.rows - first))


def _write(
    data: str, manifest: Manifest, features: Sequence[CategoricalFeature], part: _Part, folder: str, layout: str, workers: int
) -> None:
    split = manifest.splits[part.split]
    dense, sparse = [one.name for one in manifest.dense], [one.name for one in features]
    labels = [LABEL] if split.labelled else []
    columns = _torchrec(folder, part, labels, dense, sparse) if layout == "torchrec-npy" else _columns(folder, part, labels, dense, sparse)
    progress = Progress(f"export {part.name}", total_rows=part.rows)
    end = part.first + part.rows

    def work(group: RowGroup) -> int:
        low, high = max(part.first, group.first), min(end, group.first + group.rows)
        table = read_row_group(data, split.shards, group, [*labels, *dense, *sparse])
        for name in dense:
            require_finite(table[name].to_numpy(), f"{data}: {name} of split '{part.split}'", group.first, "make the data set again")
        for name, column in columns.items():
            column[low - part.first : high - part.first] = table[name].to_numpy()[low - group.first : high - group.first]
        return high - low

    groups = [group for group in row_groups(data, split.shards) if group.first < end and group.first + group.rows > part.first]
    with ThreadPoolExecutor(workers) as pool:
        for rows in pool.map(work, groups):
            progress.update(rows=rows)
    progress.close()
    for column in columns.values():
        base = column if isinstance(column, np.memmap) else column.base
        base.flush()


def _torchrec(folder: str, part: _Part, labels: list[str], dense: list[str], sparse: list[str]) -> dict[str, Any]:
    """Views [N] of the columns of the three files, by name."""
    views: dict[str, Any] = {}
    for kind, names, dtype in (("dense", dense, np.float32), ("sparse", sparse, np.int32), ("labels", labels, np.int32)):
        path = inside(folder, f"{part.name}_{kind}.npy")
        whole = _mapped(path, dtype, (part.rows, len(names)))
        views |= {name: whole[:, at] for at, name in enumerate(names)}
    return views


def _mapped(path: str, dtype: Any, shape: tuple[int, ...]) -> np.memmap[Any, Any]:
    """A new memory-mapped npy file. Its disk space is allocated at once: if the disk filled up later, a store would end the process with
    SIGBUS and without a message.

    Raises:
        OSError: there is not enough space; names the file.
    """
    with naming(path):
        whole = np.lib.format.open_memmap(path, "w+", dtype, shape)
        with open(path, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
    return whole


def _columns(folder: str, part: _Part, labels: list[str], dense: list[str], sparse: list[str]) -> dict[str, Any]:
    os.makedirs(inside(folder, part.split))
    types = dict.fromkeys(labels, np.uint8) | dict.fromkeys(dense, np.float32) | dict.fromkeys(sparse, np.int32)
    return {name: _mapped(inside(folder, part.split, f"{file_name(name)}.npy"), dtype, (part.rows,)) for name, dtype in types.items()}


def _said(manifest: Manifest, features: Sequence[CategoricalFeature], parts: list[_Part], layout: str) -> dict[str, Any]:
    """The contents of export.json: the files and the cardinalities of the features."""
    taken = {feature.name for feature in features}
    columns = [*(feature.name for feature in manifest.dense), *taken] if layout == "columns-npy" else []
    files = {name: file_name(name) for name in columns if file_name(name) != name}
    return {
        "format": layout,
        "dataset": manifest.dataset,
        "dense": [feature.name for feature in manifest.dense],
        "sparse": [feature.name for feature in features],
        "cardinalities": {feature.name: feature.cardinality for feature in features},
        "left_out": [feature.name for feature in manifest.categorical if feature.name not in taken],
        **({"files": files} if files else {}),
        "parts": [{"split": part.split, "name": part.name, "rows": part.rows} for part in parts],
        "made_by": manifest.made_by,
    }
