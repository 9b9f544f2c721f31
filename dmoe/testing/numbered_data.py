"""A small data set whose first dense column is the row number, to check which rows were used."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dmoe.testing.small_data import make_data_set

SCALE = 4096
"""The column is number / SCALE, which is exact in float32 and not larger than other features."""


def make_numbered_data_set(folder: Path, rows: int = 3000) -> None:
    make_data_set(folder, {"train": rows, "validation": 700, "test": 700})
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    first = 0
    for shard in manifest["splits"]["train"]["shards"]:
        file = folder / shard["path"]
        table = pq.read_table(file)
        numbers = np.arange(first, first + len(table), dtype=np.float32) / SCALE
        pq.write_table(
            table.set_column(table.column_names.index("I1"), "I1", pa.array(numbers)), file, row_group_size=256, write_page_checksum=True
        )
        shard["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
        first += len(table)
    path.write_text(json.dumps(manifest))
