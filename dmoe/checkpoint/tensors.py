"""Reads and writes safetensors files without torch. Writing needs no second copy in memory; reading maps the file and returns row ranges.

A file consists of the length of the header (8 bytes), the header (JSON: name -> dtype, shape, offsets), and the data.
"""

import hashlib
import mmap
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, BinaryIO

import numpy as np

from dmoe.errors import UserError, one_line, reason_of
from dmoe.json_text import format_json, parse_json
from dmoe.storage.paths import PATHS, check_regular

MAX_HEADER = 64 << 20
NUMPY = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "<i1", "U8": "<u1", "BOOL": "?"}
"""numpy name of every supported dtype. bfloat16 is not supported: numpy does not have it, and checkpoints do not use it."""
NAMES = {np.dtype(name): dtype for dtype, name in NUMPY.items()}


@dataclass(frozen=True)
class Entry:
    """A tensor in a file. `start` is the position of its data in the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int

    @property
    def bytes(self) -> int:
        return int(np.prod(self.shape, dtype=object)) * np.dtype(NUMPY[self.dtype]).itemsize


def write_tensors(
    file: BinaryIO,
    entries: Sequence[tuple[str, str, tuple[int, ...]]],
    chunks: Iterable[np.ndarray],
    metadata: dict[str, str] | None = None,
) -> tuple[int, str]:
    """Writes a file.

    Args:
        entries: (name, dtype, shape) of each tensor.
        chunks: the data of all tensors in order, in arrays of any size.

    Returns:
        The length of the file and its SHA-256.

    Raises:
        OSError: it cannot be written.
    """
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    offset = 0
    for name, dtype, shape in entries:
        size = Entry(dtype, shape, 0).bytes
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = format_json(header).encode()
    text += b" " * (-len(text) % 8)
    head = struct.pack("<Q", len(text)) + text
    digest, written = hashlib.sha256(head), 0
    file.write(head)
    for chunk in chunks:
        view = np.ascontiguousarray(chunk).reshape(-1).view(np.uint8).data
        file.write(view)
        digest.update(view)
        written += len(view)
    assert written == offset, f"{written} bytes written, the header says {offset}"
    return len(head) + written, digest.hexdigest()


class TensorFile:
    """A memory-mapped safetensors file.

    Args:
        path: local, or a URI that iopath can download.

    Raises:
        UserError: not a valid safetensors file; gives the reason.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            check_regular(path, path)
            with open(PATHS.get_local_path(path), "rb") as file:
                self.size = file.seek(0, 2)
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if self.size else b""
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({reason_of(error)})") from None
        self.entries = _entries(self._map, self.size, path)

    def rows(self, name: str, low: int = 0, high: int | None = None) -> np.ndarray:
        """Rows [low, high) of a tensor, as a read-only view of the file.

        Raises:
            UserError: no such tensor.
        """
        entry = self.entries.get(name)
        if entry is None:
            raise UserError(f"{self.path}: no tensor '{name}', which the checkpoint's index names")
        whole = np.frombuffer(self._map, NUMPY[entry.dtype], int(np.prod(entry.shape)), entry.start).reshape(entry.shape)
        return whole[low:high] if entry.shape else whole


def read_entries(path: str) -> dict[str, Entry]:
    """Reads the header of a file: its tensors by name.

    Raises:
        UserError: not a valid safetensors file; gives the reason.
    """
    try:
        with PATHS.open(path, "rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            head = file.read(8)
            if len(head) == 8:
                head += file.read(min(struct.unpack("<Q", head)[0], MAX_HEADER))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({reason_of(error)})") from None
    return _entries(head, size, path)


def _entries(data: Any, size: int, path: str) -> dict[str, Entry]:
    def refuse(why: str) -> UserError:
        return UserError(f"{path}: damaged: not a safetensors file ({why})")

    length = struct.unpack("<Q", data[:8])[0] if size >= 8 else 0
    if not 2 <= length <= min(MAX_HEADER, size - 8):
        raise refuse(f"header of {length:,} bytes in a file of {size:,}")
    try:
        header = parse_json(data[8 : 8 + length])
    except ValueError as error:
        raise refuse(f"its header is not JSON: {error}") from None
    if not isinstance(header, dict):
        raise refuse("its header is not an object")
    entries: dict[str, Entry] = {}
    for name, fields in header.items():
        if name == "__metadata__":
            continue
        try:
            dtype, shape, (start, stop) = fields["dtype"], fields["shape"], fields["data_offsets"]
            numbers = [start, stop, *shape]
            known = dtype in NUMPY and len(shape) <= 8 and all(type(x) is int and 0 <= x < 1 << 48 for x in numbers)
            # Dimensions of 0 count as 1: numpy refuses an empty tensor whose other dimensions are too large.
            known = known and prod(max(size, 1) for size in shape) < 1 << 48
            entry = Entry(dtype, tuple(shape), 8 + length + start) if known else None
        except (KeyError, TypeError, ValueError):
            entry = None
        if entry is None or entry.bytes != stop - start or entry.start + entry.bytes > size:
            raise refuse(f"tensor '{one_line(name, 80)}' has a wrong dtype, shape or place")
        entries[name] = entry
    end = 8 + length
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].bytes)):
        if entry.start != end:
            how = "overlaps the one" if entry.start < end else "leaves a gap behind the one"
            raise refuse(f"tensor '{one_line(name, 80)}' {how} before it")
        end += entry.bytes
    if end != size:
        raise refuse(f"{size - 8 - length:,} bytes of numbers, the header says {end - 8 - length:,}")
    return entries
