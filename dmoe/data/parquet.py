"""How the shards of every data set are written as parquet."""

import hashlib
import os
from collections.abc import Collection, Mapping
from typing import Any

from dmoe.data.manifest import GROUP, WEIGHT

FEW_VALUES = 1024
"""Columns with at most this many ids are dictionary-encoded in parquet, the others byte-stream-split: their high bytes are mostly 0,
which zstd then sees in a row. Smaller, and faster to write and read, than either encoding for all."""


def many_values(cardinalities: Mapping[str, int]) -> frozenset[str]:
    """The features that are byte-stream-split."""
    return frozenset(name for name, ids in cardinalities.items() if ids > FEW_VALUES)


def writer_options(schema: Any, many: Collection[str]) -> dict[str, Any]:
    """What pyarrow's writer is told for a pyarrow.Schema of shards."""
    import pyarrow as pa

    leaf = {field.name: f"{field.name}.list.element" if pa.types.is_list(field.type) else field.name for field in schema}
    split = {name for name in leaf if name in many or name in (GROUP, WEIGHT)}
    return {
        "compression": "zstd",
        "compression_level": 1,
        "use_dictionary": [leaf[name] for name in leaf if name not in split],
        "column_encoding": {leaf[name]: "BYTE_STREAM_SPLIT" for name in leaf if name in split},
        "write_statistics": False,
        "store_schema": False,
        "write_page_checksum": True,
    }


def write_shard(path: str, table: Any, row_group_rows: int, many: Collection[str]) -> str:
    """Writes a pyarrow.Table as a shard, atomically; returns its sha256."""
    import pyarrow.parquet as pq

    pq.write_table(table, path + ".tmp", row_group_size=row_group_rows, **writer_options(table.schema, many))
    return finish(path)


def finish(path: str) -> str:
    """Puts `path`.tmp, which is whole, in its place; returns its sha256."""
    with open(path + ".tmp", "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    os.replace(path + ".tmp", path)
    return digest
