"""Recognises the format of a raw file by its first bytes: plain text, compressed text, an archive of one text file, or something else.

Layers may be nested, as in a .tar.gz. Each layer is read as a stream, in bounded memory and to its end, so that wrong checksums,
truncation and trailing bytes are noticed. Other formats are refused by name.
"""

import re
import tarfile
from contextlib import suppress
from typing import IO

from dmoe.data.prepare.source.container_readers import BROKEN, OPENERS, TAR, Stream
from dmoe.data.prepare.source.raw_bytes import open_raw
from dmoe.errors import UserError
from dmoe.names import printable

READABLE = {
    "gzip": rb"\x1f\x8b",
    # A skippable frame is legal before any frame; pzstd writes one first.
    "zstd": rb"(\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18)",
    "bz2": rb"BZh[1-9](1AY&SY|\x17rE8P\x90)",
    "xz": rb"\xfd7zXZ\0",
    "zip": rb"PK(\x03\x04|\x05\x06)",
}
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
HEAD = 4096
DEEPEST = 3
CONTROLS = bytes([0, 7, 8, *range(0x0E, 0x1A)])
"""Bytes that occur in no text. Other ASCII control characters separate fields in some logs, or get into them by mistake."""


def find_layers(path: str, name: str, size: int) -> tuple[tuple[str, ...], bytes]:
    """The layers around the text of a file, the outermost first, and the first `size` bytes of the text.

    Args:
        name: how messages name the file.

    Raises:
        UserError: not text (names the format), an archive of several files, a truncated or broken file, UTF-16, or lines that end in CR.
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
        UserError: a layer is broken, or an archive does not hold exactly one file.
    """
    stream: Stream = file
    try:
        for layer in layers:
            stream = OPENERS[layer](name, stream)
    except BROKEN as error:
        raise _broken(name, error) from None
    return stream


def read_full(name: str, stream: Stream, size: int) -> bytes:
    """Reads `size` bytes; fewer only at the end of the stream.

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
    """The name of a layer, or a key of REFUSED; None if the bytes may be text."""
    if not _is_binary(head):
        return None
    with suppress(tarfile.HeaderError, ValueError):
        tarfile.TarInfo.frombuf(head[:512], "utf-8", "surrogateescape")
        return TAR
    return next((what for what, magic in (READABLE | REFUSED).items() if re.match(magic, head, re.DOTALL)), None)


def _is_binary(head: bytes) -> bool:
    """Whether the bytes are not UTF-8 text. The magic bytes of a format alone are no proof: a column's name may begin with them."""
    return len(head.translate(None, CONTROLS)) < len(head) or _undecodable(head) > 0


def _undecodable(head: bytes) -> int:
    """Number of bytes that are not UTF-8. A character that is cut off at the end of `head` does not count."""
    lost = len(head) - len(head.decode("utf-8", "ignore").encode())
    try:
        head.decode()
    except UnicodeDecodeError as error:
        return 0 if error.reason == "unexpected end of data" else lost
    return lost


def _check_text(name: str, start: bytes) -> None:
    """Checks that the first bytes of a file are lines of UTF-8 text.

    Raises:
        UserError: they are not.
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
