"""Writes a data set of random rows with the features of a manifest, for rehearsals, where only the shape of the data matters."""

import hashlib
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dmoe.data.dataset.manifest import GROUP, WEIGHT, Manifest, Shard, Split, save_manifest
from dmoe.data.parquet import require_finite_columns
from dmoe.storage.paths import join, write_atomic

ROW_GROUP = 256


def write_random_set(folder: str, schema: Manifest, rows: Mapping[str, int]) -> Manifest:
    """Writes one shard for each split, and the manifest.

    Ids are uniform, so that all shards of a table are looked up; the first row holds the last id of each feature. Labels are random.

    Args:
        schema: manifest whose features are used. Its splits are not.
        rows: number of rows of each split.
    """
    splits = {}
    for number, (name, count) in enumerate(rows.items()):
        table = _rows(schema, count, np.random.default_rng([0, number]))
        require_finite_columns(name, table)
        buffer = io.BytesIO()
        pq.write_table(table, buffer, row_group_size=ROW_GROUP)
        path, positives = f"{name}-00000.parquet", int(table["label"].to_numpy().sum())
        with write_atomic(join(folder, path), sync=False) as file:
            file.write(buffer.getvalue())
        shard = Shard(path=path, rows=count, positives=positives, sha256=hashlib.sha256(buffer.getvalue()).hexdigest())
        splits[name] = Split(rows=count, positives=positives, shards=(shard,))
    # Random ids stand for no token, so the features have no identity.
    changes = {
        "dense": tuple(one.model_copy(update={"identity": None}) for one in schema.dense),
        "categorical": tuple(one.model_copy(update={"identity": None}) for one in schema.categorical),
        "splits": splits,
        "dataset": "random rows",
        "made_by": {"tool": "dmoe.train.rehearsal.random_set"},
    }
    manifest = schema.model_copy(update=changes)
    save_manifest(folder, manifest)
    return manifest


def _rows(schema: Manifest, count: int, rng: np.random.Generator) -> pa.Table:
    label = rng.integers(0, 2, count).astype(np.uint8)
    # Both labels must occur, or there is no AUC.
    label[:2] = [0, 1][:count]
    columns: dict[str, Any] = {"label": label}
    for dense in schema.dense:
        columns[dense.name] = rng.normal(size=count).astype(np.float32)
    for feature in schema.categorical:
        lengths = 1 + rng.poisson(max(feature.mean_ids - 1, 0.0), count) if feature.multi_valued else np.ones(count, np.int64)
        ids = rng.integers(0, feature.cardinality, int(lengths.sum())).astype(np.int32)
        ids[0] = feature.cardinality - 1
        borders = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        columns[feature.name] = pa.ListArray.from_arrays(pa.array(borders), pa.array(ids)) if feature.multi_valued else ids
    if schema.weight is not None:
        columns[WEIGHT] = rng.uniform(0.5, 1.5, count).astype(np.float32)
    if schema.group is not None:
        columns[GROUP] = rng.integers(0, max(count // 4, 1), count)
    return pa.table(columns)
