"""How the shards of every data set are written as parquet."""

import hashlib
import os
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from dmoe.data.engine import beside
from dmoe.finite import require_finite

FEW_VALUES = 1024
"""Columns with at most this many ids are dictionary-encoded in parquet, the others byte-stream-split: their high bytes are mostly 0,
which zstd then sees in a row. Smaller, and faster to write and read, than either encoding for all."""


def many_values(cardinalities: Mapping[str, int]) -> frozenset[str]:
    """The features that are byte-stream-split, by their cardinality."""
    return frozenset(name for name, ids in cardinalities.items() if ids > FEW_VALUES)


def writer_options(schema: Any, many: Collection[str]) -> dict[str, Any]:
    """What pyarrow's writer is told for a pyarrow.Schema of shards, of which the columns of `many` are byte-stream-split."""
    import pyarrow as pa

    leaf = {field.name: f"{field.name}.list.element" if pa.types.is_list(field.type) else field.name for field in schema}
    return {
        "compression": "zstd",
        "compression_level": 1,
        "use_dictionary": [path for name, path in leaf.items() if name not in many],
        "column_encoding": {path: "BYTE_STREAM_SPLIT" for name, path in leaf.items() if name in many},
        "write_statistics": False,
        "store_schema": False,
        "write_page_checksum": True,
    }


def require_finite_columns(path: str, table: Any, first_row: int = 0) -> None:
    """Refuses rows of a shard, a pyarrow.Table, whose floats are not all finite. Every writer of shards calls it.

    Raises:
        UserError: names the shard, the feature and the row.
    """
    import pyarrow as pa

    for name, kind in zip(table.schema.names, table.schema.types, strict=True):
        if pa.types.is_floating(kind):
            what = f"{path}: {name}"
            require_finite(
                np.asarray(table[name]), what, first_row, "check the feature's transform, and the mean and deviation it is kept with"
            )


def write_shard(path: str, table: Any, row_group_rows: int, many: Collection[str]) -> str:
    """Writes a pyarrow.Table as a shard, atomically; returns its sha256.

    Raises:
        UserError: a number is not finite.
    """
    import pyarrow.parquet as pq

    require_finite_columns(path, table)
    pq.write_table(table, beside(path), row_group_size=row_group_rows, **writer_options(table.schema, many))
    return finish(path)


def finish(path: str) -> str:
    """Puts what is written beside `path`, and is whole, in its place; returns its sha256."""
    with open(beside(path), "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    os.replace(beside(path), path)
    return digest
