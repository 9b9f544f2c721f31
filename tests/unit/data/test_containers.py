"""A log within compression or an archive is read as the plain file is, by Criteo's path and the general one; what is no text is named."""

import bz2
import gzip
import io
import lzma
import random
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from pyarrow import orc

from dmoe.data.prepare.options import Options
from dmoe.data.prepare.pipeline import preprocess
from dmoe.data.prepare.schema import parse_schema
from dmoe.data.prepare.source.containers import find_layers, read_full, unwrapped
from dmoe.errors import UserError
from tests.log_files import pipe
from tests.unit.data.log.logs import data_bytes
from tests.unit.data.test_parse import with_field

RNG = random.Random(0)
CRITEO = b"".join(with_field(14, b"%08x" % RNG.getrandbits(32)) + b"\n" for _ in range(400))
GENERAL = b"click,site,price\n" + b"".join(b"%d,s%d,%r\n" % (RNG.random() < 0.4, RNG.randrange(9), RNG.random()) for _ in range(900))
SCHEMA = {"label": "click", "dense": ["price"], "categorical": ["site"]}


def zstd(data: bytes) -> bytes:
    return bytes(pa.Codec("zstd").compress(data, asbytes=True))


def skippable(data: bytes, number: int = 0) -> bytes:
    return struct.pack("<II", 0x184D2A50 + number, len(data)) + data


def pzstd(data: bytes) -> bytes:
    """As pzstd writes it: before each frame a skippable one that holds the frame's size."""
    frames = [zstd(data[at : at + len(data) // 3 + 1]) for at in range(0, len(data), len(data) // 3 + 1)]
    return b"".join(skippable(struct.pack("<I", len(frame))) + frame for frame in frames)


def in_two(compress: Callable[[bytes], bytes], between: bytes = b"") -> Callable[[bytes], bytes]:
    return lambda data: compress(data[: len(data) // 2]) + between + compress(data[len(data) // 2 :])


def tar(data: bytes, *others: tuple[str, bytes], name: str = "log/day_0", format: int = tarfile.PAX_FORMAT, first: bool = False) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as archive:
        for member, content in [*others, (name, data)] if first else [(name, data), *others]:
            info = tarfile.TarInfo(member)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def zipped(data: bytes, *others: tuple[str, bytes], name: str = "log/day_0", method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for member, content in [(name, data), *others]:
            archive.writestr(member, content)
    return out.getvalue()


def old_tar(data: bytes) -> bytes:
    """A header of 1979, which has no magic bytes: name, mode, owner, group, size, time, checksum."""
    head = bytearray(512)
    for at, field in (
        (0, b"day_0"),
        (100, b"0000644\0"),
        (108, b"0" * 8),
        (116, b"0" * 8),
        (124, b"%011o\0" % len(data)),
        (136, b"0" * 12),
    ):
        head[at : at + len(field)] = field
    head[148:156] = b"%06o\0 " % (sum(head) + 8 * 32)
    return bytes(head) + data + bytes(-len(data) % 512 + 1024)


READ: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "gzip of several members, one of them empty": in_two(gzip.compress, gzip.compress(b"")),
    "zstd of several frames": in_two(zstd),
    "zstd with skippable frames": in_two(zstd, skippable(b"note", 15)),
    "zstd with a skippable frame at its end": lambda data: zstd(data) + skippable(bytes(100_000)),
    "pzstd": pzstd,
    "bz2 of several streams": in_two(bz2.compress),
    "xz": lzma.compress,
    "xz of several streams, padded": lambda data: in_two(lzma.compress, bytes(8))(data) + bytes(4),
    "zip": zipped,
    "zip that stores": lambda data: zipped(data, method=zipfile.ZIP_STORED),
    "zip as macOS makes it": lambda data: zipped(data, ("log/", b""), ("__MACOSX/log/._day_0", b"\0\5\x16\7")),
    "tar": tar,
    "old tar": old_tar,
    "tar.gz": lambda data: gzip.compress(tar(data, ("log/._day_0", b"\0\5\x16\7"))),
    "tar.xz": lambda data: lzma.compress(tar(data, format=tarfile.GNU_FORMAT)),
    "zip of a gzip": lambda data: zipped(gzip.compress(data)),
    "tar of a zstd": lambda data: tar(zstd(data)),
}


@pytest.mark.parametrize("how", READ)
def test_a_log_is_read_through_its_layers(tmp_path: Path, how: str):
    (tmp_path / "log").write_bytes(READ[how](GENERAL))
    layers, start = find_layers(str(tmp_path / "log"), "log", 99)
    assert layers
    assert start == GENERAL[:99]
    with open(tmp_path / "log", "rb") as file:
        assert read_full("log", unwrapped("log", file, layers), 1 << 30) == GENERAL


def criteo(inputs: str, output: Path, block_bytes: int = 20_000) -> dict[str, bytes]:
    preprocess(Options([inputs], str(output), schema="criteo", min_count=1, workers=1, block_bytes=block_bytes))
    return data_bytes(output)


def general(inputs: str, output: Path, block_bytes: int = 5_000) -> dict[str, bytes]:
    schema = parse_schema(yaml.safe_load(yaml.safe_dump(SCHEMA)), "schema.yaml")
    preprocess(Options([inputs], str(output), schema=schema, where="schema.yaml", min_count=1, workers=1, block_bytes=block_bytes))
    return data_bytes(output)


PATHS = {"criteo": (criteo, CRITEO), "general": (general, GENERAL)}


@pytest.mark.parametrize("path", PATHS)
def test_each_path_makes_the_plain_files_data_set(tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch):
    make, text = PATHS[path]
    (tmp_path / "plain").write_bytes(text)
    whole = make(str(tmp_path / "plain"), tmp_path / "whole")
    for number, how in enumerate(("pzstd", "xz of several streams, padded", "zip", "tar.gz")):
        (tmp_path / "log").write_bytes(READ[how](text))
        assert make(str(tmp_path / "log"), tmp_path / f"d{number}") == whole, how
    pipe(monkeypatch, zipped(text))
    assert make("-", tmp_path / "piped") == whole


def parquet(data: bytes) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table({"click": [0, 1]}), out)
    return out.getvalue()


def orc_file(data: bytes) -> bytes:
    out = io.BytesIO()
    orc.write_table(pa.table({"click": [0, 1]}), out)
    return out.getvalue()


def encrypted(data: bytes) -> bytes:
    """The flag of encryption in both headers of the member."""
    out = bytearray(zipped(data))
    out[out.index(b"PK\3\4") + 6] |= 1
    out[out.index(b"PK\1\2") + 8] |= 1
    return bytes(out)


NOISE = RNG.randbytes(9000)
REFUSED: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "gzip with bytes behind it": (lambda data: gzip.compress(data) + b"junk", "truncated or broken"),
    "gzip with zeros behind it": (lambda data: gzip.compress(data) + bytes(64), "truncated or broken"),
    "gzip cut in its last member": (lambda data: in_two(gzip.compress)(data)[:-9], "truncated or broken"),
    "zstd with bytes behind it": (lambda data: zstd(data) + b"junk", "truncated or broken"),
    "pzstd cut": (lambda data: pzstd(data)[:-5], "truncated or broken"),
    "zstd cut in a skippable frame": (lambda data: zstd(data) + skippable(b"note")[:-1], "truncated or broken"),
    "bz2 cut": (lambda data: bz2.compress(data)[:-5], "truncated or broken"),
    "bz2 with bytes behind it": (lambda data: bz2.compress(data) + b"junkjunkjunk", "truncated or broken"),
    "xz cut": (lambda data: lzma.compress(data)[:-5], "truncated or broken"),
    "xz with bytes behind it": (lambda data: lzma.compress(data) + b"junk", "truncated or broken"),
    "zip cut": (lambda data: zipped(data)[:-50], "truncated or broken"),
    "zip of a wrong checksum": (lambda data: zipped(data, method=0).replace(data[50:60], data[51:61], 1), "truncated or broken"),
    "tar cut": (lambda data: tar(data)[: len(data) // 2], "truncated or broken"),
    "tar.gz cut in gzip's checksum": (lambda data: gzip.compress(tar(data))[:-6], "truncated or broken"),
    "zip of several files": (lambda data: zipped(data, ("test.csv", b"x")), "several files (log/day_0, test.csv)"),
    "zip of none": (lambda data: zipped(data, name="log/"), "holds no file"),
    "zip encrypted": (encrypted, "log/day_0 is encrypted"),
    "zip within gzip": (lambda data: gzip.compress(zipped(data)), "is zip within gzip"),
    "tar.gz of several files": (lambda data: gzip.compress(tar(data, ("test", b"x"))), "several files (log/day_0, test, ...)"),
    "tar.gz of a small file first": (
        lambda data: gzip.compress(tar(data, ("readme", b"x"), first=True)),
        "several files (readme, log/day_0",
    ),
    "parquet": (parquet, "is a parquet file"),
    "gzip of parquet": (lambda data: gzip.compress(parquet(data)), "is a parquet file"),
    "ORC": (orc_file, "is an ORC file"),
    "Avro": (lambda data: b"Obj\x01\x04\x16avro.schema\0" + NOISE, "is an Avro file"),
    "ELF": (lambda data: b"\x7fELF\x02\x01\x01" + bytes(9) + NOISE, "is a program (ELF)"),
    "7z": (lambda data: b"7z\xbc\xaf\x27\x1c\0\4" + NOISE, "is a 7z archive"),
    "rar": (lambda data: b"Rar!\x1a\x07\x01\0" + NOISE, "is a rar archive"),
    "lz4": (lambda data: bytes(pa.Codec("lz4").compress(data, asbytes=True)), "is lz4"),
    "zlib": (zlib.compress, "is zlib"),
    "noise": (lambda data: NOISE, "is no text (its first bytes are"),
    "UTF-16 with a mark": (lambda data: data.decode().encode("utf-16"), "is UTF-16"),
    "UTF-16 without a mark": (lambda data: data.decode().encode("utf-16-be"), "is UTF-16"),
    "gzip of UTF-32": (lambda data: gzip.compress(data.decode().encode("utf-32")), "is UTF-16 or UTF-32"),
    "CR alone": (lambda data: data.replace(b"\n", b"\r"), "its lines end in CR alone"),
    "Excel's note": (lambda data: b"sep=,\r\n" + data, ":1: 'sep=,' is a note for Excel"),
    "Excel's note behind a mark": (lambda data: b'\xef\xbb\xbf"SEP=;"\n' + data, ":1: 'SEP=;' is a note for Excel"),
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("how", REFUSED)
def test_what_is_no_text_or_not_whole_is_named_in_one_line(tmp_path: Path, path: str, how: str):
    make, text = PATHS[path]
    change, said = REFUSED[how]
    (tmp_path / "log").write_bytes(change(text))
    with pytest.raises(UserError) as caught:
        make(str(tmp_path / "log"), tmp_path / "d")
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}/log:")
    assert said in message
    assert message.isprintable()
    assert not (tmp_path / "d" / "manifest.json").exists()


@pytest.mark.parametrize(
    "text",
    [
        b"ORCID,site\n1,2\n",
        b"PAR1,b\n1,2\n",
        b"BZh91AY&SY,b\n",
        b"a\x01b\x02c\n" * 50,
        "größe\n".encode("latin-1") * 50,
        b"\0" * 100 + b"\n" + GENERAL,
    ],
    ids=["a name like ORC's", "a name like parquet's", "a name like bz2's", "Hive's delimiters", "another encoding", "a hole of zeros"],
)
def test_what_may_be_text_is_left_to_the_reader_of_lines(tmp_path: Path, text: bytes):
    (tmp_path / "log").write_bytes(text)
    assert find_layers(str(tmp_path / "log"), "log", 1 << 16) == ((), text)


def test_names_within_an_archive_cannot_reach_the_terminal(tmp_path: Path):
    (tmp_path / "log").write_bytes(zipped(b"x", ("größe\x1b[2J", b"x")))
    with pytest.raises(UserError, match=r"log/day_0, größe\\x1b\[2J"):
        find_layers(str(tmp_path / "log"), "log", 10)


def test_the_rows_before_a_break_are_not_published(tmp_path: Path):
    """The break is seen at the end only, behind blocks that were parsed."""
    (tmp_path / "log").write_bytes(in_two(gzip.compress)(CRITEO)[:-4])
    with pytest.raises(UserError, match="truncated or broken"):
        criteo(str(tmp_path / "log"), tmp_path / "d", block_bytes=2_000)
    assert not (tmp_path / "d" / "manifest.json").exists()
