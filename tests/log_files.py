"""Logs as tests write them to disk, and what preprocessing leaves there."""

import gzip
import io
from pathlib import Path

import pyarrow as pa
import pytest

from dmoe.testing.synthesize import synthesize

PACKED = ("plain", "gzip", "zstd", "cut")
NO_TEXT = ("expected text", "expected UTF-8", "is no text", "in CR alone", "the archive holds")
"""What is said of a file that holds no text in lines."""


def write_logs(folder: Path, rows: int, scale: float) -> Path:
    """Three days of Criteo's log: two plain files and a compressed one."""
    for day in range(3):
        synthesize(str(folder / f"day_{day}.tsv"), rows, seed=day, scale=scale, bad_share=0.01)
    (folder / "day_2.tsv.gz").write_bytes(gzip.compress((folder / "day_2.tsv").read_bytes()))
    (folder / "day_2.tsv").unlink()
    return folder


def packed(data: bytes, how: str) -> bytes:
    """As it is, compressed, or with the end of its compressed bytes cut off."""
    if how == "zstd":
        return bytes(pa.Codec("zstd").compress(data, asbytes=True))
    if how == "plain":
        return data
    zipped = gzip.compress(data)
    return zipped[: len(zipped) * 2 // 3] if how == "cut" else zipped


def pipe(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    """Standard input has these bytes."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))


def contents(folder: Path) -> dict[str, bytes]:
    """Of all files."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
