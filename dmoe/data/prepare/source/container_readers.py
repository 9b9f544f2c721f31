"""Streams that decompress a file, or read the only file of an archive."""

import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from typing import IO, Any

from dmoe.errors import UserError
from dmoe.names import printable

Stream = IO[bytes] | Any
"""An object with `read(size)`, which may return fewer bytes, and returns none only at the end."""
TAR = "tar"
"""Recognised by the checksum of its first header, since old tar files have no magic bytes."""
CHUNK = 1 << 16
XZ_MEMORY = 256 << 20
"""Memory limit of the decoder. Files of `xz -9` need 65 MiB."""
BROKEN = (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError, NotImplementedError)


def _arrow(codec: str) -> Callable[[str, Stream], Stream]:
    """Arrow's reader for a codec. It reads several gzip members, zstd frames (also skippable ones) or bz2 streams in a row, and refuses
    other bytes after them."""

    def opened(name: str, file: Stream) -> Stream:
        import pyarrow as pa

        return pa.CompressedInputStream(pa.PythonFile(file, mode="r"), codec)

    return opened


class _Reader(io.RawIOBase):
    """Base class, with what Arrow needs to read from a Python object."""

    def readable(self) -> bool:
        return True


class _Xz(_Reader):
    """Reads xz streams in a row, with padding between them. Python's own reader would ignore other bytes after the last stream."""

    def __init__(self, name: str, file: Stream) -> None:
        self.file = file
        self._begin()

    def _begin(self) -> None:
        self.decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, XZ_MEMORY)

    def read(self, size: int = -1) -> bytes:
        while True:
            more = b""
            if self.decoder.eof:
                more = self.decoder.unused_data.lstrip(b"\0")
                while not more:
                    if not (more := self.file.read(CHUNK)):
                        return b""
                    more = more.lstrip(b"\0")
                self._begin()
            elif self.decoder.needs_input and not (more := self.file.read(CHUNK)):
                raise EOFError("the file ends within an xz stream")
            if piece := self.decoder.decompress(more, size):
                return piece


def _zip_member(name: str, file: Stream) -> Stream:
    archive = zipfile.ZipFile(file)
    members = [one for one in archive.infolist() if not one.is_dir() and not _is_note(one.filename)]
    if len(members) != 1:
        raise _not_one(name, [one.filename for one in members], "unzip -p")
    if members[0].flag_bits & 1:
        raise UserError(f"{name}: {printable(members[0].filename)} is encrypted; unpack it first")
    return archive.open(members[0])


class _TarMember(_Reader):
    """The only file of a tar archive. Whether there is a second file is known only at the end."""

    def __init__(self, name: str, file: Stream) -> None:
        self.name, self.file = name, file
        self.archive = tarfile.open(fileobj=file, mode="r|")  # noqa: SIM115
        self.members: list[str] = []
        self.member = self._next()
        if self.member is None:
            raise _not_one(name, [], "tar -xOf")

    def _next(self) -> Any:
        while (member := self.archive.next()) is not None:
            if member.isreg() and not _is_note(member.name):
                self.members.append(member.name)
                return self.archive.extractfile(member)
        return None

    def read(self, size: int = -1) -> bytes:
        if self.member is None:
            return b""
        piece: bytes = self.member.read(size)
        if not piece and size:
            self.member = self._next()
            if self.member:
                raise _not_one(self.name, [*self.members, "..."], "tar -xOf")
            # Read to the end, so that a compression around the tar can check its checksum.
            while self.file.read(CHUNK):
                pass
        return piece


def _is_note(member: str) -> bool:
    """Whether macOS has added this member beside a file of the archive."""
    return member.startswith("__MACOSX/") or member.rsplit("/", 1)[-1].startswith("._")


def _not_one(name: str, members: list[str], command: str) -> UserError:
    held = ", ".join(printable(one)[:80] for one in members[:4]) + ", ..." * (len(members) > 4)
    what = f"several files ({held})" if members else "no file"
    hint = f"; unpack it and name one, or pipe one in: {command} FILE MEMBER | ... --input -" if members else ""
    return UserError(f"{name}: the archive holds {what}, expected one{hint}")


OPENERS: dict[str, Callable[[str, Stream], Stream]] = {
    "gzip": _arrow("gzip"),
    "zstd": _arrow("zstd"),
    "bz2": _arrow("bz2"),
    "xz": _Xz,
    "zip": _zip_member,
    TAR: _TarMember,
}
