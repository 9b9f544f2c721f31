"""S3 for iopath: objects are read in ranges, prefixes are folders, and credentials are found the way boto3 finds them.

iopath's own handler reads a whole object into memory to open it, asks for an AWS profile named `saml`, and knows a folder only where its
path ends in `/` and an object of that name was made.
"""

from collections.abc import Iterator
from typing import IO, Any

from botocore.exceptions import BotoCoreError, ClientError
from iopath.common.s3 import S3PathHandler

from dmoe.storage.ranged import RangedObject, buffered


class RangedS3PathHandler(S3PathHandler):
    """iopath's handler, but for reading, folders, and errors, which are OSErrors."""

    def __init__(self) -> None:
        super().__init__(profile=None)

    def _head_object(self, path: str) -> dict[str, Any] | None:
        bucket, key = self._parse_uri(path)
        if not key:
            return None
        try:
            head: dict[str, Any] = self._get_client(bucket).head_object(Bucket=bucket, Key=key)
            return head
        except ClientError as error:
            if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 404:
                return None
            raise OSError(f"{path}: {error}") from None
        except BotoCoreError as error:
            raise OSError(f"{path}: {error}") from None

    def identity(self, path: str) -> tuple[int, str]:
        """(bytes, entity tag) of an object: equal only for equal contents."""
        head = self._head_object(path)
        if head is None:
            raise FileNotFoundError(2, "no such object", path)
        return int(head["ContentLength"]), str(head["ETag"]).strip('"')

    def _exists(self, path: str, **kwargs: Any) -> bool:
        return self._head_object(path) is not None or self._isdir(path)

    def _isfile(self, path: str, **kwargs: Any) -> bool:
        return not path.endswith("/") and self._head_object(path) is not None

    def _isdir(self, path: str, **kwargs: Any) -> bool:
        return next(self._below(path), None) is not None

    def _ls(self, path: str, **kwargs: Any) -> list[str]:
        """The names of what lies directly in a folder; none where there is no such folder."""
        return [key.rstrip("/").rsplit("/", 1)[-1] for key in self._below(path)]

    def _below(self, path: str) -> Iterator[str]:
        """Keys of objects directly in a folder, and, ending in `/`, of folders in it."""
        bucket, key = self._parse_uri(path.rstrip("/") + "/")
        pages = self._get_client(bucket).get_paginator("list_objects_v2")
        try:
            for page in pages.paginate(Bucket=bucket, Prefix=key, Delimiter="/"):
                found = [one["Key"] for one in page.get("Contents", ())] + [one["Prefix"] for one in page.get("CommonPrefixes", ())]
                # Some tools make an object of the folder's own name.
                yield from (one for one in found if one != key)
        except (ClientError, BotoCoreError) as error:
            raise OSError(f"{path}: {error}") from None

    def _open(self, path: str, mode: str = "r", buffering: int = -1, **kwargs: Any) -> IO[Any]:
        if mode not in ("r", "rt", "rb"):
            return super()._open(path, mode, buffering, **kwargs)
        size, etag = self.identity(path)
        bucket, key = self._parse_uri(path)
        client = self._get_client(bucket)

        def fetch(start: int, stop: int) -> bytes:
            try:
                found = client.get_object(Bucket=bucket, Key=key, Range=f"bytes={start}-{stop - 1}", IfMatch=etag)
                data: bytes = found["Body"].read()
            except (ClientError, BotoCoreError) as error:
                raise OSError(f"s3://{bucket}/{key}: {error}") from None
            return data

        return buffered(RangedObject(fetch, size, etag), mode, buffering)
