"""S3 for iopath: objects are read in ranges, and credentials are found the way boto3 finds them.

iopath's own handler reads a whole object into memory to open it, and asks for an AWS profile named `saml`.
"""

import io
from typing import IO, Any

from botocore.exceptions import BotoCoreError, ClientError
from iopath.common.s3 import S3PathHandler

BUFFER_BYTES = 4 << 20


class RangedObject(io.RawIOBase):
    """An object as a file that seeks; every `readinto` is one request of a range, filled completely up to the object's end."""

    def __init__(self, client: Any, bucket: str, key: str, size: int, etag: str) -> None:
        self.client, self.bucket, self.key, self.size, self.etag = client, bucket, key, size, etag
        self.at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.at, io.SEEK_END: self.size}[whence]
        return self.at

    def readinto(self, buffer: Any) -> int:
        """Raises OSError where the request fails, or the object is no longer the one that was opened."""
        view = memoryview(buffer).cast("B")
        end = min(self.at + len(view), self.size)
        if end <= self.at:
            return 0
        try:
            found = self.client.get_object(Bucket=self.bucket, Key=self.key, Range=f"bytes={self.at}-{end - 1}", IfMatch=self.etag)
            data = found["Body"].read()
        except (ClientError, BotoCoreError) as error:
            raise OSError(f"s3://{self.bucket}/{self.key}: {error}") from None
        view[: len(data)] = data
        self.at += len(data)
        return len(data)


class RangedS3PathHandler(S3PathHandler):
    """iopath's handler, but for reading, and for errors, which are OSErrors."""

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

    def _open(self, path: str, mode: str = "r", buffering: int = -1, **kwargs: Any) -> IO[Any]:
        """`buffering=0` gives the RangedObject itself; otherwise reads of less than BUFFER_BYTES are served from a buffer of that size."""
        if mode not in ("r", "rt", "rb"):
            return super()._open(path, mode, buffering, **kwargs)
        size, etag = self.identity(path)
        bucket, key = self._parse_uri(path)
        raw: Any = RangedObject(self._get_client(bucket), bucket, key, size, etag)
        if buffering == 0:
            return raw
        buffered = io.BufferedReader(raw, max(buffering, 0) or BUFFER_BYTES)
        return buffered if mode == "rb" else io.TextIOWrapper(buffered, encoding="utf-8")
