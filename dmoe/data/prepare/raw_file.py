"""A raw input file: what tells it from other states of itself, and its text as it is decompressed."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import IO, Any

from dmoe.data.prepare.sources import identity
from dmoe.errors import UserError

MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}


@dataclass(frozen=True)
class RawFile:
    """`size` is in bytes as it lies there; by `size` and `changed` (dmoe.data.prepare.sources.identity) a continued run knows it.

    `path` is its name for people; its bytes are at `at`, where that is another place.
    """

    path: str
    size: int
    changed: int | str
    compression: str | None
    at: str = field(default="", kw_only=True)

    @property
    def place(self) -> str:
        return self.at or self.path

    @property
    def known_by(self) -> list[object]:
        """Equal for the same file in the same state: what names of work in progress are made from."""
        return [self.path, self.size, self.changed]


def check_unchanged(files: Sequence[RawFile]) -> None:
    """
    Raises:
        UserError: a file was written to since it was found, so that what was read of it may be no state that it ever had.
    """
    for one in files:
        if not one.at and identity(one.path) != (one.size, one.changed):
            raise UserError(f"{one.path}: changed while it was read; run the same command again when it is complete")


def compression_of(head: bytes) -> str | None:
    """By a file's first bytes, not by its name."""
    return next((name for magic, name in MAGIC.items() if head.startswith(magic)), None)


def decompressed(file: IO[bytes], compression: str | None) -> IO[bytes] | Any:
    if not compression:
        return file
    import pyarrow as pa

    return pa.CompressedInputStream(pa.PythonFile(file, mode="r"), compression)


def read_full(path: str, stream: IO[bytes] | Any, size: int) -> bytes:
    """`size` bytes, fewer only at the end of the stream.

    Raises:
        UserError: a compressed file is truncated or broken.
    """
    pieces, left = [], size
    try:
        while left and (piece := stream.read(left)):
            pieces.append(piece)
            left -= len(piece)
    except OSError as error:
        raise UserError(f"{path}: cannot be decompressed, it is truncated or broken ({error})") from None
    return b"".join(pieces)
