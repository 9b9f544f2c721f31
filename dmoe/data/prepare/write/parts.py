"""Stage 1: parses the inputs once into part files (Arrow streams), which the later stages read.

A piece gives one part or several. Part K of piece M of input N is `N-M-K.arrow`, and `N-M-K.arrow.bad` if some of its lines are malformed.
`N-M-K.arrow.json`, with their checksums, is renamed into place last. If it exists, the part is complete, and a run that continues does not
make it again.
"""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow as pa

from dmoe.data.dataset.files import file_sha256
from dmoe.data.prepare.encode.encode_rows import Encoded, Seen
from dmoe.data.prepare.engines.engine import Engine, run_tasks
from dmoe.data.prepare.parse.front_ends import Front
from dmoe.data.prepare.rejects import Reject
from dmoe.data.prepare.source.log_files import File
from dmoe.data.progress import Progress
from dmoe.json_text import format_json
from dmoe.storage.paths import write_atomic, write_text

Item = TypeVar("Item")


@dataclass(frozen=True)
class Part:
    """A finished part.

    Attributes:
        input: number of the input file.
        lines, rows, bad: number of lines, of well-formed rows and of malformed rows.
        truncated: rows whose bags were cut.
        seen: further counts.
    """

    path: str
    input: int
    lines: int
    rows: int
    bad: int
    truncated: int
    seen: Seen


def write_part(path: str, encoded: Encoded) -> dict[str, Any]:
    """Writes a part atomically; returns the fields of Part, as `read_about` does."""
    digests = {"": _write(path, encoded.batches)}
    if encoded.rejects:
        digests[".bad"] = _write(path + ".bad", [pa.RecordBatch.from_pylist([vars(one) for one in encoded.rejects])])
    about = {"lines": encoded.lines, "rows": encoded.rows, "bad": len(encoded.rejects), "truncated": encoded.truncated}
    write_text(path + ".json", format_json({**about, "seen": vars(encoded.seen), "sha256": digests}), sync=False)
    return {**about, "seen": encoded.seen}


def _write(path: str, batches: list[pa.RecordBatch]) -> str:
    """Writes an Arrow stream, whose batches may have different dictionaries; returns its checksum."""
    with write_atomic(path, sync=False) as file:
        if batches:
            with pa.ipc.new_stream(file, batches[0].schema) as writer:
                for batch in batches:
                    writer.write_batch(batch)
    return file_sha256(path)


def read_about(path: str) -> dict[str, Any] | None:
    """The fields of Part of a part file; None if the part is absent or damaged."""
    try:
        with open(path + ".json", "rb") as file:
            about: dict[str, Any] = json.load(file)
        if any(file_sha256(path + suffix) != digest for suffix, digest in about.pop("sha256").items()):
            return None
        positives, labels, unread = (about["seen"][name] for name in ("positives", "labels", "unread"))
        about["seen"] = Seen(positives, Counter(labels), Counter(unread))
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return None
    return about


def read_batches(part: Part, names: list[str]) -> Iterator[pa.RecordBatch]:
    """Yields the named columns of a part, a batch of rows at a time."""
    if not part.rows:
        return
    with pa.memory_map(part.path) as file:
        schema = pa.ipc.open_stream(file).schema
    options = pa.ipc.IpcReadOptions(included_fields=sorted({schema.get_field_index(name) for name in names}), use_threads=False)
    with pa.memory_map(part.path) as file:
        yield from pa.ipc.open_stream(file, options=options)


def read_rejects(part: Part, before: int) -> Iterator[Reject]:
    """Yields the malformed lines of a part. `before` is the number of lines of the input before the part."""
    if part.bad:
        with pa.OSFile(part.path + ".bad") as file:
            for row in pa.ipc.open_stream(file).read_all().to_pylist():
                yield Reject(**row | {"line": before + row["line"]})


@dataclass(frozen=True)
class _Piece:
    """Piece `number` of a file; without a `number`, all pieces of the file."""

    input: int
    file: File
    number: int | None = None
    piece: Any = None
    size: int = 0
    last: bool = True


def parse_files(files: list[File], front: Front, folder: str, engine: Engine, check: Callable[[Part, bool], None]) -> list[Part]:
    """Parses the files, except for parts that are there already, and returns the parts in the order of the rows.

    Args:
        check: called in order with every part and whether it is the last one of its input. It may raise an error to stop.
    """
    os.makedirs(folder, exist_ok=True)
    progress = Progress("parse", total_bytes=sum(one.size for one in files))
    items = (piece for number, one in enumerate(files) for piece in _pieces(front, number, one, engine.far))
    parts: list[Part] = []
    try:
        with closing(run_tasks(engine, _type, (front, folder), items, lambda one: progress.update(one[0].rows, one[1]))) as done:
            for part, _, last in done:
                parts.append(part)
                check(part, last)
    finally:
        progress.close()
    return parts


def _pieces(front: Front, number: int, one: File, far: bool) -> Iterator[_Piece]:
    """The pieces of a file, one for each task. With a far engine, a file that must be read in order is one piece, so that the task reads
    it."""
    if far and not front.anywhere(one):
        yield _Piece(number, one)
        return
    for found, last in _marked(front.pieces(one)):
        yield _Piece(number, one, *found, last)


def _marked(items: Iterable[Item]) -> Iterator[tuple[Item, bool]]:
    """Yields (item, whether it is the last one)."""
    held: list[Item] = []
    for item in items:
        if held:
            yield held.pop(), False
        held.append(item)
    if held:
        yield held[0], True


def _type(shared: tuple[Front, str], piece: _Piece) -> Iterator[tuple[Part, int, bool]]:
    """Yields (part, its bytes on disk, whether it is the last one of its input)."""
    front, folder = shared
    for one in [piece] if piece.number is not None else _pieces(front, piece.input, piece.file, far=False):
        for place, (part, last) in enumerate(_marked(front.parts(one.piece))):
            path = os.path.join(folder, f"{one.input:05d}-{one.number:06d}-{place:03d}.arrow")
            about = read_about(path)
            if about is None:
                about = write_part(path, front.encode(one.file, part))
            yield Part(path, one.input, **about), 0 if place else one.size, one.last and last
