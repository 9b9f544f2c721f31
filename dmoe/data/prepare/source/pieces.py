"""Reads the files of a log in pieces of whole rows.

A text file is read in order and cut at the ends of records. A piece of a parquet file is a few row groups, which the task decodes, or
a batch of a huge one. The result for a row (dmoe.data.prepare.parse.front_ends) does not depend on its piece.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dmoe.data.prepare.rejects import BOM
from dmoe.data.prepare.schema import Schema
from dmoe.data.prepare.source.blank_end import WithoutBlankEnd
from dmoe.data.prepare.source.containers import read_full, unwrapped
from dmoe.data.prepare.source.log_files import MAX_ROW, File
from dmoe.data.prepare.source.raw_bytes import is_remote, open_raw
from dmoe.data.prepare.source.record_ends import cut_at_record
from dmoe.data.prepare.tokens.byte_words import occurrences
from dmoe.errors import UserError, first_line

BYTES_A_ROW = 256
"""Assumed size of a parquet row, to convert the block size to a number of rows."""
MOST_ROWS = 1 << 20
"""Row groups of more rows are not decoded by the task that encodes them. pyarrow writes no larger ones unless told."""
BUFFER = 1 << 18
"""Bytes of a column chunk that are read at a time, so that memory does not grow with row groups. Remote chunks are read whole."""
LENGTH_BYTES = 4
"""Size of the length before each text of a parquet file. A column with fewer bytes a value is dictionary-encoded."""


def pieces(one: File, schema: Schema, block_bytes: int) -> Iterator[tuple[Any, int]]:
    """Yields (piece, its bytes) in order: text, row groups, or a batch of rows."""
    if schema.format == "parquet":
        yield from _parquet_pieces(one, schema, block_bytes)
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
                yield text, len(text)
                number += occurrences(text, b"\n")


@dataclass(frozen=True)
class RowGroups:
    """Consecutive row groups of a parquet file.

    Attributes:
        first: number of their first row, from 1.
        rows: of a batch.
        coded: paths of the columns that are read as dictionaries.
    """

    file: File
    metadata: pq.FileMetaData
    groups: range
    first: int
    rows: int
    coded: tuple[str, ...]

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Decodes the rows, batch by batch.

        Raises:
            UserError: the file is damaged; names the row where the batch begins.
        """
        number, coded = self.first, self.coded
        try:
            while True:
                try:
                    for batch in self._batches(coded, number - self.first):
                        yield batch
                        number += batch.num_rows
                    return
                except pa.ArrowNotImplementedError:
                    # pyarrow cannot read lists as dictionaries where the rows of a batch have several dictionaries.
                    coded, before = tuple(path for path in coded if "." not in path), coded
                    if coded == before:
                        raise
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(self.file, number, error) from None

    def _batches(self, coded: tuple[str, ...], begin: int) -> Iterator[pa.RecordBatch]:
        """Decodes the rows from row `begin` on."""
        buffer = 0 if is_remote(self.file.place) else BUFFER
        with open_raw(self.file.place) as raw:
            options = {"read_dictionary": coded, "buffer_size": buffer, "page_checksum_verification": True}
            file = pq.ParquetFile(raw, metadata=self.metadata, **options)
            for batch in file.iter_batches(self.rows, row_groups=self.groups, columns=list(self.file.used), use_threads=False):
                if batch.num_rows > begin:
                    yield batch.slice(begin)
                begin = max(begin - batch.num_rows, 0)


def _unreadable(one: File, number: int, error: Exception) -> UserError:
    return UserError(f"{one.path}: cannot be read at row {number:,} ({first_line(error, 100)})")


def _parquet_pieces(one: File, schema: Schema, block_bytes: int) -> Iterator[tuple[Any, int]]:
    """Row groups with the rows of a batch or more, or batches of a huge row group."""
    try:
        with open_raw(one.place) as raw:
            metadata = pq.ParquetFile(raw).metadata
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(one, 1, error) from None
    rows_of = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    wanted, coded = max(block_bytes // BYTES_A_ROW, 1), _coded_columns(metadata, one, schema)
    begin, number, held = 0, 1, 0
    for group, rows in enumerate(rows_of):
        held += rows
        if held >= wanted or (held and group == len(rows_of) - 1):
            piece = RowGroups(one, metadata, range(begin, group + 1), number, wanted, coded)
            # One thread decodes a huge row group, so that others encode its batches meanwhile.
            parts = [(piece, held)] if held <= MOST_ROWS else ((batch, batch.num_rows) for batch in piece.batches())
            for part, count in parts:
                yield part, one.size * count // metadata.num_rows
            begin, number, held = group + 1, number + held, 0


def _coded_columns(metadata: pq.FileMetaData, one: File, schema: Schema) -> tuple[str, ...]:
    """The columns of texts that the first row group holds dictionary-encoded."""
    pooled = {feature.column or feature.name for feature in schema.categorical if feature.pooling}
    found = []
    for place in range(metadata.num_columns if metadata.num_row_groups else 0):
        column = metadata.row_group(0).column(place)
        name, *inner = column.path_in_schema.split(".")
        is_text = str(metadata.schema.column(place).logical_type) == "String"
        is_coded = column.total_uncompressed_size < LENGTH_BYTES * column.num_values
        if is_text and is_coded and name in one.used and (not inner or name in pooled):
            found.append(column.path_in_schema)
    return tuple(found)
