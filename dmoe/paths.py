"""Every path goes through iopath, so that data, checkpoints and reports live wherever a user has a handler for."""

from iopath.common.file_io import PathManager

from dmoe.errors import UserError

PATHS = PathManager()
"""Local paths at once; `PATHS.register_handler(...)` adds more (S3 is registered where boto3 is installed)."""

try:
    from dmoe.s3 import RangedS3PathHandler

    PATHS.register_handler(RangedS3PathHandler())
except ImportError:
    pass


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
        UserError: no such file, or a larger one.
    """
    try:
        with PATHS.open(path, "rb") as file:
            content: bytes = file.read(most + 1)
    except (FileNotFoundError, IsADirectoryError):
        raise UserError(f"{asked_by or path}: no such file") from None
    if len(content) > most:
        raise UserError(f"{path}: larger than {most >> 20} MiB, which no {kind} is")
    return content
