"""Opens the files of shards, reads row groups, and compares files with the checksums of the manifest."""

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, BinaryIO

from dmoe.data.dataset.manifest import Manifest, Shard
from dmoe.errors import UserError
from dmoe.names import LABEL
from dmoe.storage.paths import PATHS, join

PIECE_BYTES = 4 << 20


@dataclass(frozen=True)
class RowGroup:
    """Row group `group` of shard `shard` of a split. It holds the rows first .. first + rows - 1 of the split."""

    shard: int
    group: int
    first: int
    rows: int


def open_shard(folder: str, shard: Shard) -> Any:
    """Opens a shard as a pyarrow.parquet.ParquetFile.

    Raises:
        UserError: it is missing, or not a parquet file.
    """
    path = join(folder, shard.path)
    return as_parquet(open_bytes(path), path)


def open_bytes(path: str) -> BinaryIO:
    """Opens the file of a shard.

    Raises:
        UserError: it is missing.
    """
    if not PATHS.exists(path):
        raise UserError(f"{path}: missing, but the manifest names it; copy it back or make the data set again")
    file: BinaryIO = PATHS.open(path, "rb")
    return file


def as_parquet(file: BinaryIO, path: str) -> Any:
    """An open file as a pyarrow.parquet.ParquetFile.

    Raises:
        UserError: it is not a parquet file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(file, page_checksum_verification=True)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path}: not a readable parquet file ({str(error)[:200]}); make the data set again") from None


def row_groups(folder: str, shards: Sequence[Shard]) -> list[RowGroup]:
    """The row groups of the shards of a split, in order.

    Raises:
        UserError: a shard has another number of rows than the manifest says.
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
    """Reads a row group as a pyarrow.Table.

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
    """The size of a local or remote file."""
    with PATHS.open(path, "rb") as file:
        return int(file.seek(0, 2))


def file_sha256(path: str) -> str:
    with PATHS.open(path, "rb") as file:
        return sha256_of(file)


def sha256_of(file: BinaryIO) -> str:
    """The SHA-256 of an open file, from its start."""
    digest = hashlib.sha256()
    file.seek(0)
    while piece := file.read(PIECE_BYTES):
        digest.update(piece)
    return digest.hexdigest()


def identity_of(file: BinaryIO) -> tuple[int, ...] | str:
    """Identifies an open file, to notice that it was replaced or overwritten: (device, inode, bytes, time of change) of a local file, the
    entity tag of an S3 object; empty if the file system has neither."""
    if tag := getattr(getattr(file, "raw", None), "etag", ""):
        return str(tag)
    try:
        found = os.fstat(file.fileno())
    except OSError:
        return ""
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def other_bytes(path: str) -> UserError:
    return UserError(f"{path}: its bytes are not those that were written (sha256 differs); copy it again or make the data set again")


def verify_shard(folder: str, shard: Shard, labelled: bool) -> None:
    """Compares a shard with the manifest: its checksum, rows and positives.

    Raises:
        UserError: the shard differs or is missing.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    path = join(folder, shard.path)
    if not PATHS.exists(path):
        raise UserError(f"{path}: missing, but the manifest names it; copy it back or make the data set again")
    if file_sha256(path) != shard.sha256:
        raise other_bytes(path)
    with open_shard(folder, shard) as file:
        rows = file.metadata.num_rows
        try:
            positives = pc.sum(file.read(columns=[LABEL], use_threads=False)[LABEL]).as_py() if labelled else 0
        except (KeyError, OSError, pa.ArrowException) as error:
            raise UserError(f"{path}: its labels cannot be read ({str(error)[:200]}); make the data set again") from None
    for what, found, said in (("rows", rows, shard.rows), ("positives", positives or 0, shard.positives)):
        if found != said:
            raise UserError(f"{path}: has {found:,} {what}, the manifest says {said:,}; make the data set again")


def verify(
    folder: str,
    manifest: Manifest,
    workers: int,
    splits: Sequence[str] | None = None,
    part: int = 0,
    parts: int = 1,
    after_each: Callable[[], None] = lambda: None,
) -> int:
    """Verifies shards in threads; returns their number.

    Args:
        splits: names of the splits to verify; None for all.
        part, parts: verifies every `parts`-th shard, beginning with shard `part`.
        after_each: called after each shard.

    Raises:
        UserError: a shard differs from the manifest, or is missing.
    """
    held = [manifest.splits[name] for name in dict.fromkeys(splits)] if splits is not None else list(manifest.splits.values())
    shards = [(shard, split.labelled) for split in held for shard in split.shards][part::parts]
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        for _ in pool.map(lambda one: verify_shard(folder, *one), shards):
            after_each()
    return len(shards)
