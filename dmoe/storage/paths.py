"""Every path goes through iopath, so that data, checkpoints and reports live wherever a user has a handler for."""

import contextlib
import errno
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from typing import Any, BinaryIO

from iopath.common.file_io import PathManager

from dmoe.errors import UserError, one_line, reason_of

S3 = "s3://"
A_LINK = "is a link, which is not followed here; put what it points to in its place, or remove it"
_OPEN_ALREADY = re.compile(r"/dev/stdin|/dev/fd/\d+|/proc/self/fd/\d+", re.ASCII)
"""What the user's shell has opened for us: `--config <(make_config)`."""


class Paths(PathManager):
    """iopath's manager, which has S3's handler from the first `s3://` path on (boto3 takes 0.2 s to import), and other stores' of fsspec
    from theirs: `gs://` by gcsfs, `az://` by adlfs, `hdfs://`."""

    def handler(self, path: str) -> Any:
        """The handler of a path such as `s3://bucket/key`; None where its scheme has none, or its package is not installed."""
        scheme = path.split("://")[0] + "://"
        if scheme in self._path_handlers or "://" not in path:
            return self._path_handlers.get(scheme)
        try:
            if scheme == S3:
                from dmoe.storage.s3 import RangedS3PathHandler

                self.register_handler(RangedS3PathHandler())
            else:
                from dmoe.storage.ranged import store_of

                if (store := store_of(scheme)) is not None:
                    self.register_handler(store)
        except ImportError:
            return None
        return self._path_handlers.get(scheme)

    # iopath asks this private method of its own for every path; the name is what Python makes of `__get_path_handler` there.
    def _PathManager__get_path_handler(self, path: str | os.PathLike[str]) -> Any:
        if "://" in str(path) and self.handler(str(path)) is None:
            raise UserError(unreachable(str(path)))
        return super()._PathManager__get_path_handler(path)


def unreachable(path: str) -> str:
    """Why a path such as `gs://logs/day` has no handler, and what to do."""
    from dmoe.storage.ranged import package_of

    scheme = path.split("://")[0] + "://"
    extra = {S3: "install dmoe[s3]", "gs://": "install dmoe[gs]", "gcs://": "install dmoe[gs]", "az://": "install dmoe[az]"}
    advice = extra.get(scheme) or package_of(scheme) or "use a local path, s3://, gs://, az:// or another scheme of fsspec's"
    return f"{one_line(path, 300)}: {one_line(scheme, 40)} cannot be reached: {advice}"


PATHS = Paths()
"""Local paths, S3 with boto3, and fsspec's stores with their packages; `PATHS.register_handler(...)` adds more."""


def join(folder: str, *names: str) -> str:
    """Joins with '/', which local paths and URIs share."""
    return "/".join([folder.rstrip("/") or "/", *names]) if folder else "/".join(names)


def inside(folder: str, *names: str) -> str:
    """As `join`, where the names come from outside, or what lies in the folder may: the path is proved to lie inside the folder.

    The folder itself, and those above it, may be links: a user chose them.

    Args:
        names: each may be several, with '/' between them.

    Raises:
        UserError: a name leaves the folder, or something below the folder is a link; nothing is read or written through one.
    """
    path = folder
    for name in "/".join(names).split("/"):
        if name in ("", ".", "..") or "\0" in name:
            raise UserError(f"{folder}: '{one_line('/'.join(names))}' leaves the folder")
        path = join(path, name)
        if "://" not in path and os.path.islink(path):
            raise UserError(f"{path}: {A_LINK}")
    return path


def no_links(folder: str) -> None:
    """Refuses a folder of our own that holds a link somewhere below itself.

    Raises:
        UserError: names the link.
    """
    for top, folders, files in os.walk(folder):
        for name in (*folders, *files):
            inside(top, name)


def no_follow(path: str, flags: int) -> int:
    """An opener for `open` that refuses a link.

    Raises:
        UserError: `path` is one.
    """
    try:
        return os.open(path, flags | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise UserError(f"{path}: {A_LINK}") from None


def remove_files(folder: str, pattern: str) -> None:
    """Removes from a local folder the files that a command of ours writes there, whose whole names match the pattern, and the folder where
    nothing else is in it."""
    if not os.path.isdir(folder):
        return
    for name in os.listdir(folder):
        if re.fullmatch(pattern, name, re.DOTALL):
            os.remove(os.path.join(folder, name))
    if not os.listdir(folder):
        os.rmdir(folder)


@contextlib.contextmanager
def naming(path: str) -> Iterator[None]:
    """Inside, an error of the operating system names the file: a write to a full disk does not know its own."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = path
        raise


@contextlib.contextmanager
def write_atomic(path: str, sync: bool = True) -> Iterator[BinaryIO]:
    """Writes a file that is either whole or not there: a new file beside it, of a random name, then renamed.

    No link is followed: one that lies at `path` is replaced. A remote file is made in the local folder of
    temporary files (TMPDIR) and sent when it is whole.

    Args:
        sync: wait until the bytes are on the disk, so that the file is whole after a power failure too. Work in progress that has a
            checksum, or is made again, does without.

    Raises:
        OSError: it cannot be written; what was there before is there still.
    """
    if "://" in path:
        # iopath and fsspec send what was written when the file is closed, after an error too: nothing is opened before all is written.
        with tempfile.TemporaryFile() as whole:
            yield whole
            whole.seek(0)
            with naming(path), PATHS.open(path, "wb") as file:
                shutil.copyfileobj(whole, file)
        return
    if os.path.exists(path) and not os.path.isfile(path):
        raise UserError(f"{path}: is not a file, and is not replaced by one")
    beside = os.path.join(os.path.dirname(path), f".{secrets.token_hex(8)}.tmp")
    try:
        with naming(path):
            with open(beside, "xb", opener=no_follow) as file:
                yield file
                file.flush()
                if sync:
                    os.fsync(file.fileno())
            os.replace(beside, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.remove(beside)
        # A person knows the file by its own name.
        if isinstance(error, OSError) and error.filename == beside:
            error.filename, error.filename2 = path, None
        raise


def write_text(path: str, text: str, sync: bool = True) -> None:
    """As `write_atomic`, of a text."""
    with write_atomic(path, sync) as file:
        file.write(text.encode())


@contextlib.contextmanager
def write_output(path: str) -> Iterator[BinaryIO]:
    """As `write_atomic`, of a file that a user names for a command's result: a pipe or a terminal, which nothing can replace, as well."""
    if "://" in path or not os.path.exists(path) or os.path.isfile(path):
        with write_atomic(path) as file:
            yield file
    else:
        with naming(path), open(path, "wb") as file:
            yield file


def append_text(path: str, text: str) -> None:
    """Adds to a file, which is made where it is not there.

    Raises:
        UserError: it is a link.
    """
    if "://" in path:
        with naming(path), PATHS.open(path, "a") as file:
            file.write(text)
        return
    with naming(path), open(path, "a", opener=no_follow) as file:
        file.write(text)


def read_bounded(path: str, most: int, kind: str, asked_by: str = "") -> bytes:
    """A small file that a user was given, whole.

    Args:
        most: bytes.
        kind: what it is, for the message, such as `config`.
        asked_by: who names it, such as `--config X`; the path where empty.

    Raises:
        UserError: no such file, a larger one, or what is no file: a folder, a FIFO, a device.
    """
    try:
        check_regular(path, asked_by or path)
        with PATHS.open(path, "rb") as file:
            content: bytes = file.read(most + 1)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise UserError(f"{one_line(asked_by or path, 300)}: no such file") from None
    except OSError as error:
        raise UserError(f"{one_line(asked_by or path, 300)}: cannot be read ({reason_of(error)})") from None
    if len(content) > most:
        raise UserError(f"{path}: larger than {most >> 20} MiB, which no {kind} is")
    return content


def check_regular(path: str, asked_by: str) -> None:
    """Refuses what is no file before it is opened: opening a FIFO waits for a writer, and a device may never end.

    Raises:
        UserError: a folder, a FIFO, a device.
        OSError: nothing is there.
    """
    if "://" in path or _OPEN_ALREADY.fullmatch(path):
        return
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}
        raise UserError(f"{asked_by}: {kinds.get(stat.S_IFMT(mode), 'a device')}, expected a file")
