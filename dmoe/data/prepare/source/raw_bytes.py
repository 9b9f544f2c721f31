"""Reads the bytes of local files, of standard input, and of everything that dmoe.storage.paths.PATHS can open, such as s3://."""

import fnmatch
import glob
import hashlib
import os
import sys
from typing import IO

from dmoe.errors import UserError, first_line
from dmoe.names import natural_key
from dmoe.storage.paths import PATHS, unreachable, write_atomic

STDIN = "-"
ENDS_BYTES = 1 << 16


def is_remote(path: str) -> bool:
    return "://" in path


def by_name(path: str) -> tuple[object, str]:
    """Sort key: first the name of the file, then its folder."""
    return natural_key(os.path.basename(path)), path


def find_paths(patterns: list[str]) -> list[str]:
    """The files of some names, folders and globs, each once, in natural order of their names.

    Raises:
        UserError: a pattern matches no file, or cannot be reached.
    """
    found = [path for pattern in patterns for path in expand(pattern)]
    return sorted({path if is_remote(path) else os.path.realpath(path): path for path in found}.values(), key=by_name)


def expand(pattern: str) -> list[str]:
    """The files of a name, a folder or a glob, in no order.

    Raises:
        UserError: it matches no file, or cannot be reached.
    """
    if is_remote(pattern):
        return _expand_remote(pattern)
    if os.path.isdir(pattern):
        inside = [os.path.join(pattern, name) for name in os.listdir(pattern) if not name.startswith((".", "_"))]
        found = [path for path in inside if os.path.isfile(path)]
        if not found:
            raise UserError(f"--input {pattern}: the folder has no files")
        return found
    if os.path.exists(pattern):
        return [pattern]
    found = [path for path in glob.glob(pattern, recursive=True) if os.path.isfile(path)]
    if not found:
        what = "no file matches" if glob.has_magic(pattern) else "no such file"
        raise UserError(f"--input {pattern}: {what}")
    return found


def _expand_remote(pattern: str) -> list[str]:
    """As `expand`. The name of a remote folder ends in `/`, and a glob matches within one folder."""
    if PATHS.handler(pattern) is None:
        raise UserError(f"--input {unreachable(pattern)}")
    folder, name = pattern.rsplit("/", 1)
    try:
        if name and not glob.has_magic(name):
            if not PATHS.isfile(pattern):
                raise UserError(f"--input {pattern}: no such file; a folder ends in '/'")
            return [pattern]
        names = [path.rsplit("/", 1)[-1] for path in PATHS.ls(folder + "/")]
    except OSError as error:
        raise UserError(f"--input {pattern}: {_reason(error)}") from None
    names = [one for one in names if one and not one.startswith((".", "_")) and fnmatch.fnmatchcase(one, name or "*")]
    if not names:
        raise UserError(f"--input {pattern}: " + ("no file matches" if name else "the folder has no files"))
    return [f"{folder}/{one}" for one in names]


def _reason(error: OSError) -> str:
    return error.strerror.lower() if error.strerror else first_line(error, 300)


def identity(path: str) -> tuple[int, int | str]:
    """(bytes, tag) of a file, by which a run that continues recognises it.

    The tag is the time of change in ns of a local file, and the entity tag of an S3 object. For other handlers it is the digest of the
    first and last 64 KiB.
    """
    if not is_remote(path):
        status = os.stat(path)
        return status.st_size, status.st_mtime_ns
    handler = PATHS.handler(path)
    if hasattr(handler, "identity"):
        size, tag = handler.identity(path)
        return int(size), str(tag)
    with open_raw(path) as file:
        size = file.seek(0, os.SEEK_END)
        digest = hashlib.sha256()
        for at in (0, max(size - ENDS_BYTES, 0)):
            file.seek(at)
            digest.update(file.read(ENDS_BYTES))
    return size, digest.hexdigest()


def open_raw(path: str) -> IO[bytes]:
    """Opens a seekable file for reading, without decompression.

    Raises:
        UserError: it cannot be opened.
    """
    try:
        file: IO[bytes] = PATHS.open(path, "rb")
    except OSError as error:
        raise UserError(f"--input {path}: {_reason(error)}") from None
    return file


def read_range(path: str, offset: int, size: int) -> bytes:
    """Reads `size` bytes from `offset`; fewer only at the end of the file. Thread-safe.

    Raises:
        UserError: a remote file is gone or cannot be read.
    """
    if not is_remote(path):
        with open(path, "rb") as file:
            return os.pread(file.fileno(), size, offset)
    try:
        with PATHS.open(path, "rb", buffering=0) as file:
            file.seek(offset)
            return bytes(file.read(size))
    except OSError as error:
        raise UserError(f"{path}: {_reason(error)}; run the same command again to continue") from None


def spool(folder: str, stream: IO[bytes] | None = None) -> tuple[str, str]:
    """Copies standard input to a file in `folder`; returns the file and the SHA-256 of its bytes, which identifies the input."""
    source = stream or sys.stdin.buffer
    path, digest = os.path.join(folder, "stdin"), hashlib.sha256()
    with write_atomic(path, sync=False) as file:
        while piece := source.read(4 << 20):
            digest.update(piece)
            file.write(piece)
    return path, digest.hexdigest()


def spool_start(folder: str, most: int = 64 << 20) -> str:
    """Copies the start of standard input to a file in `folder`; all of it for parquet and zip, whose directory is at the end."""
    source, path, size = sys.stdin.buffer, os.path.join(folder, "stdin"), 0
    with open(path, "wb") as file:
        head = source.read(4)
        file.write(head)
        while (size < most or head[:2] == b"PK" or head == b"PAR1") and (piece := source.read(1 << 20)):
            file.write(piece)
            size += len(piece)
    return path
