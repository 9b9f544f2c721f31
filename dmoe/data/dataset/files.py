"""The files of a data set's shards: opened, read by row group, and held against the manifest's checksums."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from dmoe.data.dataset.manifest import Manifest, Shard
from dmoe.errors import UserError
from dmoe.paths import PATHS, join

PIECE_BYTES = 4 << 20


@dataclass(frozen=True)
class RowGroup:
    """Row group `group` of shard `shard` of a split; its rows are first .. first + rows - 1 of the split."""

    shard: int
    group: int
    first: int
    rows: int


def open_shard(folder: str, shard: Shard) -> Any:
    """The shard as a pyarrow.parquet.ParquetFile.

    Raises:
        UserError: it is missing, or no parquet file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = join(folder, shard.path)
    if not PATHS.exists(path):
        raise UserError(f"{path}: missing, but the manifest names it; copy it back or make the data set again")
    try:
        return pq.ParquetFile(PATHS.open(path, "rb"), page_checksum_verification=True)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path}: not a readable parquet file ({str(error)[:200]}); make the data set again") from None


def row_groups(folder: str, shards: Sequence[Shard]) -> list[RowGroup]:
    """The row groups of a split's shards, in order.

    Raises:
        UserError: a shard has other rows than the manifest says.
    """
    groups, first = [], 0
    for number, shard in enumerate(shards):
        metadata, before = open_shard(folder, shard).metadata, first
        for group in range(metadata.num_row_groups):
            rows = metadata.row_group(group).num_rows
            groups.append(RowGroup(number, group, first, rows))
            first += rows
        if first - before != shard.rows:
            raise UserError(f"{join(folder, shard.path)}: has {first - before:,} rows, the manifest says {shard.rows:,}")
    return groups


def read_row_group(folder: str, shards: Sequence[Shard], group: RowGroup, columns: Sequence[str] | None = None) -> Any:
    """A row group as a pyarrow.Table.

    Raises:
        UserError: it cannot be read.
    """
    import pyarrow as pa

    file = open_shard(folder, shards[group.shard])
    try:
        return file.read_row_group(group.group, columns=list(columns) if columns else None, use_threads=False)
    except (OSError, pa.ArrowException) as error:
        path = join(folder, shards[group.shard].path)
        raise UserError(f"{path}: cannot be read ({str(error)[:200]}); make the data set again") from None
    finally:
        file.close(force=True)


def file_bytes(path: str) -> int:
    """The size of a file, wherever it lies."""
    with PATHS.open(path, "rb") as file:
        return int(file.seek(0, 2))


def file_sha256(path: str) -> str:
    digest = hashlib.sha256()
    with PATHS.open(path, "rb") as file:
        while piece := file.read(PIECE_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def verify(folder: str, manifest: Manifest, workers: int) -> int:
    """Reads every shard and compares its bytes with the manifest's checksum; returns how many shards there are.

    Raises:
        UserError: one differs or is missing.
    """

    def work(shard: Shard) -> None:
        path = join(folder, shard.path)
        if not PATHS.exists(path):
            raise UserError(f"{path}: missing, but the manifest names it; copy it back or make the data set again")
        if file_sha256(path) != shard.sha256:
            raise UserError(f"{path}: its bytes are not those that were written (sha256 differs); copy it again or make the data set again")

    shards = [shard for split in manifest.splits.values() for shard in split.shards]
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        for _ in pool.map(work, shards):
            pass
    return len(shards)
