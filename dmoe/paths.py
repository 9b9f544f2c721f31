"""Every path goes through iopath, so that data, checkpoints and reports live wherever a user has a handler for."""

from iopath.common.file_io import PathManager

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
