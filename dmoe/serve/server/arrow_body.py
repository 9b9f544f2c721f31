"""Reads the Arrow stream of a request, which may be damaged or made to harm: nothing in it is used before it was checked."""

import struct
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dmoe.errors import UserError, one_line, shown

DICTIONARY_BATCH, RECORD_BATCH = 2, 3
"""Values of `MessageHeader` in Arrow's Message.fbs."""


class TooLarge(UserError):
    """A request with too many rows or bytes."""


def arrow_rows(body: bytes, most_rows: int, most_bytes: int) -> pa.Table:
    """The table in an Arrow stream.

    Args:
        most_rows: largest number of rows.
        most_bytes: most bytes of its values, decompressed, and with the texts of a dictionary once for each row.

    Raises:
        UserError: no Arrow stream, a damaged one, or a column of a type that is not read.
        TooLarge: too many rows or bytes.
    """
    try:
        if sum(_declared_sizes(body)) > most_bytes:
            raise TooLarge(f"the values of the stream take more than {most_bytes >> 20} MiB")
        reader, batches, rows = pa.ipc.open_stream(body), [], 0
        for batch in reader:
            rows += batch.num_rows
            if rows > most_rows:
                raise TooLarge(f"more than {most_rows:,} rows, as many as this server takes at once")
            # Arrow does not check offsets and indices when it reads: wrong ones end the process when they are used.
            batch.validate(full=True)
            batches.append(batch)
        table = pa.Table.from_batches(batches, reader.schema)
        twice = next((name for name in table.column_names if len(table.schema.get_all_field_indices(name)) > 1), None)
        if twice is not None:
            raise UserError(f"column {shown(twice)} is there twice")
        if sum(_text_bytes(column, name) for name, column in zip(table.column_names, table.columns, strict=True)) > most_bytes:
            raise TooLarge(f"the texts of the stream take more than {most_bytes >> 20} MiB, once for each row")
        return table
    except (pa.ArrowException, OSError, struct.error, IndexError, UnicodeDecodeError) as error:
        raise UserError(f"the request is no Arrow stream ({one_line(str(error), 200)})") from None


def _text_bytes(column: pa.ChunkedArray, name: str) -> int:
    """Bytes of the texts of a column that may name one text in several rows; 0 for other columns."""
    kind = column.type
    if pa.types.is_dictionary(kind) and not pa.types.is_nested(kind.value_type):
        if not _is_text(kind.value_type):
            return 0
        lengths = [pc.binary_length(chunk.dictionary).take(chunk.indices) for chunk in column.chunks]
        return sum(pc.sum(one).as_py() or 0 for one in lengths)
    if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        # A view is 16 bytes, which begin with the length. Chunks of a stream have no offset.
        lengths = [np.frombuffer(chunk.buffers()[1], "<i4", 4 * len(chunk))[::4] for chunk in column.chunks if len(chunk)]
        return sum(int(one.sum(dtype=np.int64)) for one in lengths)
    inner = kind.value_type if pa.types.is_list(kind) or pa.types.is_large_list(kind) else kind
    if not (_is_text(inner) or any(fits(inner) for fits in (pa.types.is_primitive, pa.types.is_null, pa.types.is_decimal))):
        raise UserError(f"column {shown(name)} is {one_line(str(kind), 80)}, expected texts, numbers, or lists of them")
    return 0


def _is_text(kind: pa.DataType) -> bool:
    return any(check(kind) for check in (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary))


def _declared_sizes(body: bytes) -> Iterator[int]:
    """The sizes of all buffers of a stream, decompressed. Buffers may overlap: a small body can hold large columns.

    Raises:
        pa.ArrowException, OSError, struct.error: no Arrow stream.
    """
    for message in pa.ipc.MessageReader.open_stream(body):
        meta = message.metadata.to_pybytes()
        root = _word(meta, 0)
        kind, at = _field(meta, root, 1), _field(meta, root, 2)
        header = at + _word(meta, at)
        if meta[kind] == DICTIONARY_BATCH:
            at = _field(meta, header, 1)
            header = at + _word(meta, at)
        elif meta[kind] != RECORD_BATCH:
            continue
        if not (at := _field(meta, header, 2)):
            continue
        at += _word(meta, at)
        compressed = _field(meta, header, 3) > 0
        for offset, size in struct.iter_unpack("<qq", meta[at + 4 : at + 4 + 16 * _word(meta, at)]):
            # A compressed buffer begins with its size after decompression, or -1 if it is not compressed.
            decoded = struct.unpack_from("<q", message.body, offset)[0] if compressed and size >= 8 and offset >= 0 else -1
            yield max(decoded if decoded >= 0 else size, 0)


def _field(meta: bytes, table: int, index: int) -> int:
    """Position of a field of a flatbuffer's table; 0 if it is absent."""
    vtable = table - struct.unpack_from("<i", meta, table)[0]
    place = 4 + 2 * index
    if place >= struct.unpack_from("<H", meta, vtable)[0]:
        return 0
    offset = struct.unpack_from("<H", meta, vtable + place)[0]
    return table + offset if offset else 0


def _word(meta: bytes, at: int) -> int:
    return int(struct.unpack_from("<I", meta, at)[0])
