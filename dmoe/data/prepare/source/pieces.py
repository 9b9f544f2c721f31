"""Reads the files of a log in pieces of whole rows.

A text file is read in order and cut at the ends of records; a parquet file is read in batches of rows. The result for a row
(dmoe.data.prepare.parse.front_ends) does not depend on its piece.
"""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dmoe.data.prepare.rejects import BOM
from dmoe.data.prepare.schema import Schema
from dmoe.data.prepare.source.blank_end import WithoutBlankEnd
from dmoe.data.prepare.source.containers import read_full, unwrapped
from dmoe.data.prepare.source.log_files import MAX_ROW, File
from dmoe.data.prepare.source.raw_bytes import open_raw
from dmoe.data.prepare.source.record_ends import cut_at_record
from dmoe.data.prepare.tokens.byte_words import occurrences
from dmoe.errors import UserError

BYTES_A_ROW = 256
"""Assumed size of a parquet row, to convert the block size to a number of rows."""


def pieces(one: File, schema: Schema, block_bytes: int) -> Iterator[tuple[Any, int, int]]:
    """Yields (piece for `read_piece`, number of its first line or row, its bytes) in order."""
    if schema.format == "parquet":
        yield from _parquet_pieces(one, block_bytes)
        return
    number = one.header_lines + 1
    with open_raw(one.place) as file:
        stream, ended = unwrapped(one.path, file, one.compression), False
        # In a log of one column an empty line is a row without a value.
        if len(one.columns) > 1 or schema.format == "jsonl":
            stream = WithoutBlankEnd(stream)
        rest = read_full(one.path, stream, one.header_bytes or len(BOM))
        rest = b"" if one.header_lines else rest.removeprefix(BOM)
        while not ended:
            more = read_full(one.path, stream, block_bytes)
            ended = len(more) < block_bytes
            text = rest + more
            cut = cut_at_record(text, one.delimiter, schema.quote_bytes, MAX_ROW, ended)
            if not cut and len(text) > 2 * MAX_ROW:
                raise UserError(f"{one.path}:{number}: a line longer than {MAX_ROW >> 20} MiB; is --schema's format right?")
            text, rest = text[:cut], text[cut:]
            if text:
                yield text, number, len(text)
                number += occurrences(text, b"\n")


def _parquet_pieces(one: File, block_bytes: int) -> Iterator[tuple[Any, int, int]]:
    number = 1
    try:
        with open_raw(one.place) as raw:
            file = pq.ParquetFile(raw, page_checksum_verification=True)
            rows = max(file.metadata.num_rows, 1)
            for batch in file.iter_batches(max(block_bytes // BYTES_A_ROW, 1), columns=list(one.used), use_threads=False):
                yield batch, number, one.size * batch.num_rows // rows
                number += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{one.path}: cannot be read at row {number:,} ({str(error).splitlines()[0][:100]})") from None
