"""Objects of a store as files that seek, each read one request of a range; and every store that fsspec knows, for iopath."""

import contextlib
import io
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from typing import IO, Any

import fsspec
from fsspec.registry import known_implementations
from iopath.common.file_io import PathHandler

BUFFER_BYTES = 4 << 20


class RangedObject(io.RawIOBase):
    """An object as a file that seeks; every `readinto` is one request, filled completely up to the object's end.

    Args:
        fetch: the bytes [start, stop); raises OSError where that fails, or the object is no longer the one that was opened.
        size: of the object, in bytes.
        etag: by which its contents are known; empty where the store has none.
    """

    def __init__(self, fetch: Callable[[int, int], bytes], size: int, etag: str) -> None:
        self.fetch, self.size, self.etag, self.at = fetch, size, etag, 0

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
        view = memoryview(buffer).cast("B")
        end = min(self.at + len(view), self.size)
        if end <= self.at:
            return 0
        data = self.fetch(self.at, end)
        view[: len(data)] = data
        self.at += len(data)
        return len(data)


def buffered(raw: RangedObject, mode: str, buffering: int) -> IO[Any]:
    """As `open` gives it: `buffering=0` the object itself, else reads of less than BUFFER_BYTES come from a buffer of that size."""
    if buffering == 0:
        return raw  # type: ignore[return-value]
    file = io.BufferedReader(raw, max(buffering, 0) or BUFFER_BYTES)
    return file if mode == "rb" else io.TextIOWrapper(file, encoding="utf-8")


def store_of(scheme: str) -> "FsspecPathHandler | None":
    """The handler of a scheme such as `gs://`; None where fsspec knows none, or its package is not installed."""
    protocol = scheme.removesuffix("://")
    if protocol not in fsspec.available_protocols():
        return None
    try:
        return FsspecPathHandler(scheme, fsspec.filesystem(protocol))
    except ImportError:
        return None


def package_of(scheme: str) -> str:
    """What fsspec wants installed for a scheme, in its words; empty where it knows none."""
    known = known_implementations.get(scheme.removesuffix("://"))
    return str(known.get("err", "")) if known else ""


class FsspecPathHandler(PathHandler):
    """A store of fsspec's, whose objects appear when they are closed."""

    def __init__(self, scheme: str, store: Any) -> None:
        super().__init__()
        self.scheme, self.store = scheme, store
        self._local: dict[str, tuple[tuple[int, str], tempfile.TemporaryDirectory[str]]] = {}

    def _get_supported_prefixes(self) -> list[str]:
        return [self.scheme]

    def identity(self, path: str) -> tuple[int, str]:
        """(bytes, fsspec's key of the contents, such as an entity tag) of an object."""
        with _os_errors(path):
            self.store.invalidate_cache()
            info = self.store.info(path)
            # Whichever of these a store has stands for the contents; fsspec's ukey covers all that it tells of an object.
            tag = info.get("etag") or info.get("ETag") or info.get("generation") or self.store.ukey(path)
            return int(info["size"]), str(tag)

    def _open(self, path: str, mode: str = "r", buffering: int = -1, **kwargs: Any) -> IO[Any]:
        self._check_kwargs(kwargs)
        if mode in ("r", "rt", "rb"):
            if not self._exists(path):
                raise FileNotFoundError(2, "no such object", path)
            size, tag = self.identity(path)

            def fetch(start: int, stop: int) -> bytes:
                with _os_errors(path):
                    data: bytes = self.store.cat_file(path, start=start, end=stop)
                if len(data) != stop - start:
                    raise OSError(f"{path}: {len(data):,} bytes where {stop - start:,} were asked for: it changed while it was read")
                return data

            return buffered(RangedObject(fetch, size, tag), mode, buffering)
        with _os_errors(path):
            file: IO[Any] = self.store.open(path, mode)
        return file

    def _exists(self, path: str, **kwargs: Any) -> bool:
        with _os_errors(path):
            self.store.invalidate_cache()
            return bool(self.store.exists(path))

    def _isfile(self, path: str, **kwargs: Any) -> bool:
        with _os_errors(path):
            return bool(self.store.isfile(path))

    def _isdir(self, path: str, **kwargs: Any) -> bool:
        with _os_errors(path):
            return bool(self.store.isdir(path))

    def _ls(self, path: str, **kwargs: Any) -> list[str]:
        """The names of what lies directly in a folder."""
        with _os_errors(path):
            self.store.invalidate_cache()
            return [found.rstrip("/").rsplit("/", 1)[-1] for found in self.store.ls(path.rstrip("/"), detail=False)]

    def _mkdirs(self, path: str, **kwargs: Any) -> None:
        with _os_errors(path):
            self.store.makedirs(path, exist_ok=True)

    def _rm(self, path: str, **kwargs: Any) -> None:
        with _os_errors(path):
            self.store.rm_file(path)

    def _get_local_path(self, path: str, force: bool = False, **kwargs: Any) -> str:
        """A copy on this machine, until this process ends; made again where the object has changed."""
        identity, name = self.identity(path), path.rsplit("/", 1)[-1]
        if force or path not in self._local or self._local[path][0] != identity:
            folder = tempfile.TemporaryDirectory(prefix="dmoe-")
            with self._open(path, "rb") as source, open(os.path.join(folder.name, name), "wb") as target:
                shutil.copyfileobj(source, target, BUFFER_BYTES)
            self._local[path] = identity, folder
        return os.path.join(self._local[path][1].name, name)

    def _copy_from_local(self, local_path: str, dst_path: str, overwrite: bool = False, **kwargs: Any) -> bool:
        with _os_errors(dst_path):
            self.store.put_file(local_path, dst_path)
        return True


@contextlib.contextmanager
def _os_errors(path: str) -> Iterator[None]:
    """Stores raise what their client libraries do; who reads files expects OSError."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(f"{path}: {type(error).__name__}: {error}") from None
