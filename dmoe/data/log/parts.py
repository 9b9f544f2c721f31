"""Stage 1: the inputs typed once into part files (Arrow), which the later stages read instead.

A part is what one block held: `N-M.arrow`, and `N-M.arrow.bad` where some of its lines are malformed. `N-M.arrow.json`, which has their
checksums, is renamed into place last: a part that it describes is whole, and is not made again when a killed run continues.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dmoe.data.engine import Threads, run_tasks
from dmoe.data.log.encode import Encoded, Seen, encode
from dmoe.data.log.rows import read_piece
from dmoe.data.log.schema import Schema
from dmoe.data.log.source import File, pieces
from dmoe.data.progress import Progress
from dmoe.data.rejects import Reject
from dmoe.json_text import format_json
from dmoe.paths import write_atomic


@dataclass(frozen=True)
class Part:
    """A finished part: its file, its input's number, how many lines, rows and malformed lines it holds, and what else was seen."""

    path: str
    input: int
    lines: int
    rows: int
    bad: int
    truncated: int
    seen: Seen


def write_part(path: str, encoded: Encoded) -> dict[str, Any]:
    """Writes a part, atomically; returns what `read_about` will."""
    lz4 = pa.ipc.IpcWriteOptions(compression="lz4")
    digests = {"": _write(path, _narrowed(encoded.batch), lz4)}
    if encoded.rejects:
        digests[".bad"] = _write(
            path + ".bad", pa.RecordBatch.from_pylist([vars(one) for one in encoded.rejects]), pa.ipc.IpcWriteOptions()
        )
    counts = {"lines": encoded.lines, "rows": encoded.batch.num_rows, "bad": len(encoded.rejects), "truncated": encoded.truncated}
    _put(path + ".json", format_json({**counts, "seen": vars(encoded.seen), "sha256": digests}).encode())
    return {**counts, "seen": encoded.seen}


def _narrowed(batch: pa.RecordBatch) -> pa.RecordBatch:
    """With codes of as few bytes as hold one more: a part is written, checked and read for a half to a quarter of the time."""
    columns = []
    for column in batch.columns:
        if pa.types.is_dictionary(column.type):
            column = _narrow(column)
        elif pa.types.is_large_list(column.type):
            column = pa.LargeListArray.from_arrays(column.offsets, _narrow(column.values))
        columns.append(column)
    return pa.RecordBatch.from_arrays(columns, batch.schema.names)


def _narrow(coded: pa.DictionaryArray) -> pa.DictionaryArray:
    known = len(coded.dictionary)
    codes = pa.uint8() if known < 1 << 8 else pa.uint16() if known < 1 << 16 else pa.int32()
    return pa.DictionaryArray.from_arrays(coded.indices.cast(codes), coded.dictionary)


def _write(path: str, batch: pa.RecordBatch, options: pa.ipc.IpcWriteOptions) -> str:
    """Writes an Arrow file; returns its checksum."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, batch.schema, options=options) as writer:
        writer.write_batch(batch)
    content = sink.getvalue()
    _put(path, content)
    return hashlib.sha256(content).hexdigest()


def _put(path: str, content: Any) -> None:
    with write_atomic(path, sync=False) as file:
        file.write(content)


def read_about(path: str) -> dict[str, Any] | None:
    """The fields of Part from `lines` on; None where it is absent or damaged."""
    try:
        with open(path + ".json", "rb") as file:
            about: dict[str, Any] = json.load(file)
        for suffix, digest in about.pop("sha256").items():
            with open(path + suffix, "rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                    return None
        positives, labels, unread = (about["seen"][name] for name in ("positives", "labels", "unread"))
        about["seen"] = Seen(positives, Counter(labels), Counter(unread))
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return None
    return about


def read_columns(part: Part, names: list[str]) -> pa.RecordBatch:
    """The named columns of a part."""
    with pa.OSFile(part.path) as file:
        schema = pa.ipc.open_file(file).schema
        options = pa.ipc.IpcReadOptions(included_fields=sorted(schema.get_field_index(name) for name in names), use_threads=False)
        return pa.ipc.open_file(file, options=options).get_batch(0)


def read_rejects(part: Part) -> list[Reject]:
    if not part.bad:
        return []
    with pa.OSFile(part.path + ".bad") as file:
        return [Reject(**row) for row in pa.ipc.open_file(file).read_all().to_pylist()]


def stage(
    files: list[File],
    schema: Schema,
    labelled: bool,
    scoring: bool,
    folder: str,
    block_bytes: int,
    workers: int,
    check: Callable[[Part], None],
) -> list[Part]:
    """Types what is not typed yet and returns the parts in the order of the rows.

    Args:
        scoring: see encode.
        check: called with every part, in order; may raise to stop.
    """
    os.makedirs(folder, exist_ok=True)
    progress = Progress("parse", total_bytes=sum(one.size for one in files if not one.compression))
    parts: list[Part] = []

    def items() -> Iterator[tuple[int, int, Any, int, int]]:
        for number, one in enumerate(files):
            for block, (piece, first, size) in enumerate(pieces(one, schema, block_bytes)):
                yield number, block, piece, first, size

    def work(_: None, item: tuple[int, int, Any, int, int]) -> Iterator[tuple[Part, int]]:
        number, block, piece, first, size = item
        path = os.path.join(folder, f"{number:05d}-{block:06d}.arrow")
        about = read_about(path)
        if about is None:
            about = write_part(path, encode(read_piece(files[number], schema, piece, first), schema, labelled, scoring))
        yield Part(path, number, **about), size

    def tell(result: tuple[Part, int]) -> None:
        progress.update(rows=result[0].rows, size=result[1])

    try:
        with closing(run_tasks(Threads(workers), work, None, items(), tell)) as done:
            for part, _ in done:
                parts.append(part)
                check(part)
    finally:
        progress.close()
    return parts


def rows_between(parts: list[Part], firsts: NDArray[np.int64], begin: int, end: int) -> Iterator[tuple[Part, int, int, int]]:
    """(part, first and last of its rows that lie in begin .. end - 1, number of its first row)."""
    number = max(int(np.searchsorted(firsts, begin, side="right")) - 1, 0)
    while number < len(parts) and firsts[number] < end:
        low, high = max(begin - int(firsts[number]), 0), min(end - int(firsts[number]), parts[number].rows)
        if low < high:
            yield parts[number], low, high, int(firsts[number])
        number += 1
