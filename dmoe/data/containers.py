"""What a raw file is, by its first bytes: plain text, text within compression or an archive of one file, or no text at all.

Layers nest, as in a .tar.gz. Each is read as a stream, in bounded memory, and to its end, so that checksums, truncation and trailing bytes
are seen. What is not read is refused by its name.
"""

import io
import lzma
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Any

from dmoe.data.sources import open_raw
from dmoe.errors import UserError, printable

Stream = IO[bytes] | Any
"""Has `read(size)`, which gives fewer bytes than asked for only where it must, and none at the end."""

READABLE = {
    "gzip": rb"\x1f\x8b",
    # A skippable frame is legal before any frame; pzstd writes one first.
    "zstd": rb"(\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18)",
    "bz2": rb"BZh[1-9](1AY&SY|\x17rE8P\x90)",
    "xz": rb"\xfd7zXZ\0",
    "zip": rb"PK(\x03\x04|\x05\x06)",
}
TAR = "tar"
"""Known by the checksum of its first header; old ones have no magic bytes."""
REFUSED = {
    "a parquet file; a schema with `format: parquet` reads it (dmoe preprocess log)": rb"PAR1",
    "an ORC file": rb"ORC",
    "an Avro file": rb"Obj\x01",
    "an Arrow file": rb"ARROW1|FEA1",
    "an HDF5 file": rb"\x89HDF\r\n\x1a\n",
    "a Hadoop sequence file": rb"SEQ[\x04-\x06]",
    "a NumPy file": rb"\x93NUMPY",
    "a pickled Python object": rb"\x80[\x02-\x05]",
    "an SQLite database": rb"SQLite format 3\0",
    "an old Office document": rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
    "a PDF document": rb"%PDF-",
    "a program (ELF)": rb"\x7fELF",
    "a cpio archive": rb"07070[127]|\xc7\x71",
    "an ar archive": rb"!<arch>\n",
    "a 7z archive": rb"7z\xbc\xaf\x27\x1c",
    "a rar archive": rb"Rar!\x1a\x07",
    "lz4": rb"\x04\x22\x4d\x18|\x02\x21\x4c\x18",
    "snappy": rb"\xff\x06\0\0sNaPpY",
    "lzip": rb"LZIP",
    "lzop": rb"\x89LZO\0",
    "lzma (not xz)": rb"\x5d\0\0[\0-\xff]{2}\xff\xff",
    "compress (.Z)": rb"\x1f\x9d",
    "zlib without gzip's header": rb"\x78[\x9c\xda]",
}
UTF_16 = rb"\xff\xfe|\xfe\xff|\0\0\xfe\xff"
HEAD, CHUNK = 4096, 1 << 16
DEEPEST = 3
XZ_MEMORY = 256 << 20
"""`xz -9` needs 65 MiB."""
BROKEN = (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError, NotImplementedError)
CONTROLS = bytes([0, 7, 8, *range(0x0E, 0x1A)])
"""Bytes that text does not hold. Others of ASCII's control characters delimit fields in some logs, or stray into them."""


def find_layers(path: str, name: str, size: int) -> tuple[tuple[str, ...], bytes]:
    """The layers around a file's text, the outermost first, and the first `size` bytes of the text.

    Args:
        name: of the file, for messages.

    Raises:
        UserError: no text, named; several files in an archive; truncated or broken; UTF-16; lines that end in CR alone.
    """
    layers: tuple[str, ...] = ()
    while True:
        with open_raw(path) as file:
            start = read_full(name, unwrapped(name, file, layers), max(size, HEAD))
        found = _found(start[:HEAD])
        if found is None:
            _check_text(name, start)
            return layers, start[:size]
        within = f" within {layers[-1]}" if layers else ""
        if found not in OPENERS:
            raise UserError(f"{name}: is {found}{within}, expected text; unpack or convert it first")
        if (layers and found == "zip") or len(layers) == DEEPEST:
            raise UserError(f"{name}: is {found}{within}; unpack it first")
        layers += (found,)


def unwrapped(name: str, file: IO[bytes], layers: tuple[str, ...]) -> Stream:
    """The text within the layers, as a stream for `read_full`.

    Raises:
        UserError: a layer is broken, or an archive of none or several files.
    """
    stream: Stream = file
    try:
        for layer in layers:
            stream = OPENERS[layer](name, stream)
    except BROKEN as error:
        raise _broken(name, error) from None
    return stream


def read_full(name: str, stream: Stream, size: int) -> bytes:
    """`size` bytes, fewer only at the end of the stream.

    Raises:
        UserError: a layer is truncated or broken.
    """
    pieces, left = [], size
    try:
        while left and (piece := stream.read(left)):
            pieces.append(piece)
            left -= len(piece)
    except BROKEN as error:
        raise _broken(name, error) from None
    return b"".join(pieces)


def _broken(name: str, error: Exception) -> UserError:
    return UserError(f"{name}: cannot be decompressed, it is truncated or broken ({printable(str(error))[:150]})")


def _found(head: bytes) -> str | None:
    """A layer, or a key of REFUSED; None for what may be text."""
    if not _is_binary(head):
        return None
    with suppress(tarfile.HeaderError, ValueError):
        tarfile.TarInfo.frombuf(head[:512], "utf-8", "surrogateescape")
        return TAR
    return next((what for what, magic in (READABLE | REFUSED).items() if re.match(magic, head, re.DOTALL)), None)


def _is_binary(head: bytes) -> bool:
    """Whether the bytes are no UTF-8 text. Some formats begin with letters, as a column's name may."""
    return len(head.translate(None, CONTROLS)) < len(head) or _undecodable(head) > 0


def _undecodable(head: bytes) -> int:
    """Bytes that are no UTF-8, but for a character that the end of `head` cuts."""
    lost = len(head) - len(head.decode("utf-8", "ignore").encode())
    try:
        head.decode()
    except UnicodeDecodeError as error:
        return 0 if error.reason == "unexpected end of data" else lost
    return lost


def _check_text(name: str, start: bytes) -> None:
    """
    Raises:
        UserError: the bytes that a file begins with are not those of UTF-8 text in lines.
    """
    head = start[:HEAD]
    zeros = [head[at:256:2].count(0) / max(len(head[at:256:2]), 1) for at in (0, 1)]
    if re.match(UTF_16, head) or (len(head) >= 16 and min(zeros) == 0 and max(zeros) > 0.5):
        raise UserError(f"{name}: is UTF-16 or UTF-32 text, expected UTF-8; convert it: iconv -f UTF-16 -t UTF-8")
    strange = len(head) - len(head.translate(None, CONTROLS)) + _undecodable(head)
    if b"\0" in head and strange > 0.3 * len(head) and _is_binary(head.split(b"\n", 1)[0]):
        raise UserError(f"{name}: is no text (its first bytes are {head[:8].hex(' ')}); unpack or convert it first")
    if b"\n" not in start and b"\r" in start[:-1]:
        raise UserError(f"{name}: its lines end in CR alone, expected LF or CR LF; convert it: tr '\\r' '\\n'")
    if note := re.match(rb'(?:\xef\xbb\xbf)?"?(sep=(.))"?\r?\n', start, re.IGNORECASE):
        said, delimiter = (printable(part.decode("utf-8", "replace")) for part in note.groups())
        raise UserError(
            f"{name}:1: '{said}' is a note for Excel, not a row; remove the line, and read the rest with the delimiter '{delimiter}'"
        )


def _arrow(codec: str) -> Callable[[str, Stream], Stream]:
    """Arrow's reader takes gzip's members, zstd's frames, skippable ones too, and bz2's streams one after another, and refuses other bytes
    behind them."""

    def opened(name: str, file: Stream) -> Stream:
        import pyarrow as pa

        return pa.CompressedInputStream(pa.PythonFile(file, mode="r"), codec)

    return opened


class _Reader(io.RawIOBase):
    """What Arrow takes for a file to read."""

    def readable(self) -> bool:
        return True


class _Xz(_Reader):
    """One xz stream after another, with the padding that may lie between them. Python's own reader ignores bytes behind the last."""

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
    """The file in a tar of one. That there is no other is known at its end only."""

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
            # What is around the tar checks itself at its end.
            while self.file.read(CHUNK):
                pass
        return piece


def _is_note(member: str) -> bool:
    """What macOS puts beside each file of an archive."""
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
