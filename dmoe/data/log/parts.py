"""Stage 1: the inputs typed once into part files (Arrow), which the later stages read instead.

A part is what one block held: `N-M.arrow`, and `N-M.bad` where some of its lines are malformed. The .arrow is renamed into place
last, so a part that is there is whole, and is not made again when a killed run continues.
"""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dmoe.data.engine import Threads, run_tasks
from dmoe.data.log.encode import Encoded, encode
from dmoe.data.log.rows import read_piece
from dmoe.data.log.schema import Schema
from dmoe.data.log.source import File, pieces
from dmoe.data.progress import Progress
from dmoe.data.rejects import Reject


@dataclass(frozen=True)
class Part:
    """A finished part: its file, its input's number, and how many lines, rows and malformed lines it holds."""

    path: str
    input: int
    lines: int
    rows: int
    bad: int
    truncated: int


def write_part(path: str, encoded: Encoded) -> None:
    """Writes a part, atomically."""
    if encoded.rejects:
        table = pa.Table.from_pylist([vars(one) for one in encoded.rejects])
        with pa.OSFile(path + ".bad", "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
    about = {"lines": encoded.lines, "rows": encoded.batch.num_rows, "bad": len(encoded.rejects), "truncated": encoded.truncated}
    schema = encoded.batch.schema.with_metadata({"dmoe": json.dumps(about)})
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with pa.OSFile(path + ".tmp", "wb") as file, pa.ipc.new_file(file, schema, options=options) as writer:
        writer.write_batch(encoded.batch.replace_schema_metadata(schema.metadata))
    os.replace(path + ".tmp", path)


def read_about(path: str) -> dict[str, int] | None:
    """What a part's file says of itself; None where it is absent or damaged."""
    try:
        with pa.OSFile(path) as file:
            about: dict[str, int] = json.loads(pa.ipc.open_file(file).schema.metadata[b"dmoe"])
            return about
    except (OSError, pa.ArrowException, KeyError, TypeError):
        return None


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
    files: list[File], schema: Schema, labelled: bool, folder: str, block_bytes: int, workers: int, check: Callable[[Part], None]
) -> list[Part]:
    """Types what is not typed yet and returns the parts in the order of the rows.

    Args:
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
            write_part(path, encode(read_piece(files[number], schema, piece, first), schema, labelled))
            about = read_about(path)
            assert about is not None
        yield Part(path, number, about["lines"], about["rows"], about["bad"], about["truncated"]), size

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
