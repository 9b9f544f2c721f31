"""Writes shards as parquet files."""

from collections.abc import Collection, Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np

from dmoe.data.dataset.files import file_sha256
from dmoe.finite import require_finite
from dmoe.storage.paths import naming, write_atomic

FEW_VALUES = 1024
"""Columns with at most this many ids are dictionary-encoded; the others use BYTE_STREAM_SPLIT, since their high bytes are mostly 0 and
compress well side by side. This is smaller and faster than one encoding for all columns."""


def many_values(cardinalities: Mapping[str, int]) -> frozenset[str]:
    """The features that use BYTE_STREAM_SPLIT because of their cardinality."""
    return frozenset(name for name, ids in cardinalities.items() if ids > FEW_VALUES)


def writer_options(schema: Any, many: Collection[str]) -> dict[str, Any]:
    """Arguments of pyarrow's parquet writer for shards with this pyarrow.Schema. The columns `many` use BYTE_STREAM_SPLIT."""
    import pyarrow as pa

    leaf = {field.name: f"{field.name}.list.element" if pa.types.is_list(field.type) else field.name for field in schema}
    # By path, since the name of a feature may equal the path of another feature's list elements.
    split = {path for name, path in leaf.items() if name in many}
    return {
        "compression": "zstd",
        "compression_level": 1,
        "use_dictionary": [path for path in leaf.values() if path not in split],
        "column_encoding": {path: "BYTE_STREAM_SPLIT" for path in leaf.values() if path in split},
        "write_statistics": False,
        "store_schema": False,
        "write_page_checksum": True,
    }


def require_finite_columns(path: str, table: Any, first_row: int = 0) -> None:
    """Checks that all floats in rows of a shard (a pyarrow.Table) are finite. Every writer of shards calls it.

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
    with write_atomic(path, sync=False) as file:
        pq.write_table(table, file, row_group_size=row_group_rows, **writer_options(table.schema, many))
    return file_sha256(path)


class ShardFile:
    """Writes a shard row group by row group. `close` moves it to its place. If the `with` block ends by an error, no file is left.

    Args:
        many: the columns that use BYTE_STREAM_SPLIT.
    """

    def __init__(self, path: str, many: Collection[str]) -> None:
        self.path, self.many = path, many
        self._writer: Any = None
        self._stack = ExitStack()

    def write(self, table: Any, row_group_rows: int) -> None:
        """Appends a pyarrow.Table in row groups of `row_group_rows` rows.

        Raises:
            OSError: the disk is full; names the file.
        """
        import pyarrow.parquet as pq

        with naming(self.path):
            if self._writer is None:
                file = self._stack.enter_context(write_atomic(self.path, sync=False))
                self._writer = pq.ParquetWriter(file, table.schema, **writer_options(table.schema, self.many))
            self._writer.write_table(table, row_group_size=row_group_rows)

    def close(self) -> str | None:
        """Finishes the file and returns its SHA-256; None if nothing was written."""
        if self._writer is None:
            return None
        with naming(self.path):
            self._writer.close()
        self._stack.close()
        return file_sha256(self.path)

    def __enter__(self) -> "ShardFile":
        return self

    def __exit__(self, *error: Any) -> None:
        if self._writer is not None:
            # Otherwise pyarrow tries to finish the closed file when the writer is deleted, and prints an error.
            self._writer.is_open = False
        self._stack.__exit__(*error)
