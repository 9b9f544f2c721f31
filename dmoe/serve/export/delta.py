"""Deltas: the changes from one scorer (the parent) to another one.

A delta is a folder with `delta.json`, `rows.safetensors` (the rows that differ), `dense.safetensors`, the graphs for other runtimes
(without weights), and in `inputs` the manifest and, for each feature, the ids whose tokens differ. Applied to its parent, a delta gives the
files of the full scorer byte for byte, with the same SHA-256.

Shapes: N rows that differ, C columns of all table sets, S table sets, R rows of a feature.
"""

import os
import shutil
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field

from dmoe.checkpoint.tensors import TensorFile, write_tensors
from dmoe.config.strict import Strict, Text
from dmoe.data.dataset.files import file_sha256
from dmoe.data.dataset.manifest import FILE as MANIFEST
from dmoe.data.dataset.manifest import RARE_ID
from dmoe.data.prepare.count.vocabulary import Vocabulary, read_vocabulary
from dmoe.finite import require_finite
from dmoe.json_text import format_json
from dmoe.serve.encoding.raw_inputs import INPUTS
from dmoe.serve.export.format import DENSE, DTYPES, FILE, PORTABLE, TABLES, ScorerFile, read_description, read_scorer_file
from dmoe.storage.paths import PATHS, join, write_atomic, write_text

DELTA, ROWS = "delta.json", "rows.safetensors"
CHUNK_ROWS = 65536
FIRST_ID = RARE_ID + 1
WHOLE = (DENSE, *PORTABLE, f"{INPUTS}/{MANIFEST}")
"""Files that a delta holds complete."""


class DeltaFile(Strict):
    """The content of delta.json.

    Attributes:
        parent: folder name of the parent, which is beside this folder; the parent may be a full scorer or a delta.
        parent_sha256: SHA-256 of the scorer.json that the parent has or makes.
        scorer: content of the scorer.json that this delta makes; its SHA-256 is `scorer_sha256`.
        files: name -> SHA-256 of the files of the delta.
        changed: feature -> number of rows that differ or are new.
    """

    format: Literal["dmoe-scorer-delta"] = "dmoe-scorer-delta"
    version: Literal[1] = 1
    parent: Text = Field(pattern=r"^[\w-]{1,64}$")
    parent_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    scorer: ScorerFile
    scorer_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    files: dict[str, str]
    changed: dict[str, int]


class Unlike(Exception):
    """There is no delta between the two scorers, because their models or tables have different forms."""


def read_delta(folder: str) -> DeltaFile | None:
    """Reads the delta.json of a folder; None if there is none.

    Raises:
        UserError: it is damaged, or of another version.
    """
    path = join(folder, DELTA)
    return read_description(path, "delta", DeltaFile, "publish it again") if PATHS.exists(path) else None


def make_delta(old: str, new: str, parent: str, output: str) -> DeltaFile:
    """Writes the differences between two scorers; delta.json is written last.

    Args:
        old, new: local folders of the scorers.
        parent: folder name of the old scorer, beside the folder where the delta will be published.

    Raises:
        Unlike: features, dims, experts or number formats differ, a feature has fewer ids than before, or the rows are pq, light or hashed.
    """
    before, after = read_scorer_file(old), read_scorer_file(new)
    # A delta covers only the matrix `rows`. Scorers with other matrices are published in full.
    if form_of(before) != form_of(after) or after.rows == "pq" or after.model.embedding.sets in ("light", "hashed"):
        raise Unlike
    vocabularies = {
        name: (read_vocabulary(join(old, name), name), read_vocabulary(join(new, name), name)) for name in vocabularies_of(before)
    }
    fewer = any(len(then.tokens) > len(now.tokens) or then.tokens.type != now.tokens.type for then, now in vocabularies.values())
    # A delta adds and replaces ids. It cannot remove one.
    if fewer or any(one.cardinality > other.cardinality for one, other in zip(before.features, after.features, strict=True)):
        raise Unlike
    os.makedirs(output, exist_ok=True)
    index_N, changed = _changed_rows(old, new, before, after)
    files = {ROWS: _write_rows(new, after, index_N, join(output, ROWS))}
    for name in (one for one in WHOLE if one in after.files):
        copy_file(join(new, name), join(output, name))
        files[name] = file_sha256(join(output, name))
    for name, (then, now) in vocabularies.items():
        if before.files[name] != after.files[name]:
            _write_tokens(then, now, join(output, name))
            files[name] = file_sha256(join(output, name))
    delta = DeltaFile(
        parent=parent,
        parent_sha256=file_sha256(join(old, FILE)),
        scorer=after,
        scorer_sha256=file_sha256(join(new, FILE)),
        files=files,
        changed=changed,
    )
    write_text(join(output, DELTA), format_json(delta.model_dump(mode="json"), indent=1) + "\n")
    return delta


def form_of(about: ScorerFile) -> Any:
    """Everything that two scorers must have in common for a delta: all but weights, ids and files."""
    features = [(one.name, one.pooling) for one in about.features]
    return (
        features,
        vocabularies_of(about),
        about.dense,
        about.experts,
        about.set_dims,
        about.model,
        about.bf16,
        about.rows,
        about.reads_raw_rows,
    )


def vocabularies_of(about: ScorerFile) -> list[str]:
    """The vocabulary files, also of features that only crosses of the model read, or nothing."""
    return sorted(name for name in about.files if name.startswith(f"{INPUTS}/vocabulary/"))


def _changed_rows(old: str, new: str, before: ScorerFile, after: ScorerFile) -> tuple[np.ndarray, dict[str, int]]:
    """The rows of the new scorer that differ from the old one's in a byte, or are new, [N]; and their number for each feature."""
    tables = [TensorFile(join(folder, TABLES)) for folder in (old, new)]
    names = ["rows", *(["scale"] if after.rows == "int8" else [])]
    found: list[np.ndarray] = []
    changed, first_old, first_new = {}, 0, 0
    for one, other in zip(before.features, after.features, strict=True):
        shared, start = min(one.cardinality, other.cardinality), len(found)
        for low in range(0, shared, CHUNK_ROWS):
            high = min(low + CHUNK_ROWS, shared)
            differ_R = np.zeros(high - low, bool)
            for name in names:
                firsts = (first_old, first_new)
                a, b = (_as_bytes(file, name, first + low, first + high) for file, first in zip(tables, firsts, strict=True))
                differ_R |= (a != b).any(1)
            found.append(np.flatnonzero(differ_R) + first_new + low)
        found.append(np.arange(first_new + shared, first_new + other.cardinality))
        changed[other.name] = sum(map(len, found[start:]))
        first_old, first_new = first_old + one.cardinality, first_new + other.cardinality
    return np.concatenate(found).astype(np.int64), changed


def _as_bytes(file: TensorFile, name: str, low: int, high: int) -> np.ndarray:
    rows = np.ascontiguousarray(file.rows(name, low, high))
    return rows.view(np.uint8).reshape(len(rows), -1)


def _write_rows(new: str, about: ScorerFile, index_N: np.ndarray, path: str) -> str:
    tables = TensorFile(join(new, TABLES))
    rows_NC = tables.rows("rows")[index_N]
    require_finite(rows_NC.astype(np.float32), f"{new}: a row")
    entries = [("index", "I64", index_N.shape), ("rows", DTYPES[about.rows], rows_NC.shape)]
    arrays = [index_N, rows_NC]
    if about.rows == "int8":
        arrays.append(tables.rows("scale")[index_N])
        entries.append(("scale", "F32", arrays[-1].shape))
    with write_atomic(path) as file:
        return write_tensors(file, entries, arrays)[1]


def _write_tokens(old: Vocabulary, new: Vocabulary, path: str) -> None:
    """Writes the ids that are new, or whose token or count differs."""
    shared = min(len(old.tokens), len(new.tokens))
    same = pc.equal(old.tokens[:shared], new.tokens[:shared]).to_numpy(zero_copy_only=False) & (old.counts[:shared] == new.counts[:shared])
    place = np.concatenate([np.flatnonzero(~same), np.arange(shared, len(new.tokens))])
    table = pa.table({"id": place + FIRST_ID, "token": new.tokens.take(pa.array(place)), "count": new.counts[place]})
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with write_atomic(path) as file:
        pq.write_table(table, file, compression="zstd", compression_level=1)


def copy_file(source: str, target: str) -> None:
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with PATHS.open(source, "rb") as file, write_atomic(target) as copy:
        shutil.copyfileobj(file, copy)


def bytes_of(folder: str) -> int:
    """Size in bytes of the files of a local version."""
    return sum(os.path.getsize(os.path.join(top, name)) for top, _, files in os.walk(folder) for name in files)
