"""Every path goes through iopath, so that data, checkpoints and reports live wherever a user has a handler for."""

import os
import re
import stat
from typing import Any

from iopath.common.file_io import PathManager

from dmoe.errors import UserError, one_line

S3 = "s3://"
_OPEN_ALREADY = re.compile(r"/dev/stdin|/dev/fd/\d+|/proc/self/fd/\d+", re.ASCII)
"""What the user's shell has opened for us: `--config <(make_config)`."""


class Paths(PathManager):
    """iopath's manager, which has S3's handler from the first `s3://` path on: boto3 takes 0.2 s to import."""

    def handler(self, path: str) -> Any:
        """The handler of a path such as `s3://bucket/key`; None where its scheme has none, for S3 where boto3 is not installed."""
        scheme = path.split("://")[0] + "://"
        if scheme == S3 and S3 not in self._path_handlers:
            try:
                from dmoe.s3 import RangedS3PathHandler
            except ImportError:
                return None
            self.register_handler(RangedS3PathHandler())
        return self._path_handlers.get(scheme)

    # iopath asks this private method of its own for every path; the name is what Python makes of `__get_path_handler` there.
    def _PathManager__get_path_handler(self, path: str | os.PathLike[str]) -> Any:
        if str(path).startswith(S3) and self.handler(str(path)) is None:
            raise UserError(f"{path}: {S3} cannot be reached without boto3; install dmoe[s3]")
        return super()._PathManager__get_path_handler(path)


PATHS = Paths()
"""Local paths and, with boto3, S3 at once; `PATHS.register_handler(...)` adds more."""


def join(folder: str, *names: str) -> str:
    """Joins with '/', which local paths and URIs share."""
    return "/".join([folder.rstrip("/") or "/", *names]) if folder else "/".join(names)


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
