"""Front ends turn the pieces of a file into encoded columns. The schema decides which front end reads a log."""

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from dmoe.data.prepare.encode.checked_rows import Block
from dmoe.data.prepare.encode.encode_rows import Encoded, encode
from dmoe.data.prepare.parse.json_block import JsonBlock
from dmoe.data.prepare.parse.parquet_block import ParquetBlock
from dmoe.data.prepare.parse.text_block import TextBlock
from dmoe.data.prepare.parse.typed_text import TypedText
from dmoe.data.prepare.schema import Schema
from dmoe.data.prepare.source.log_files import File
from dmoe.data.prepare.source.pieces import RowGroups, pieces


def read_piece(file: File, schema: Schema, piece: Any, number: int) -> Block:
    """The rows of a piece of text, or of a batch of a parquet file. `number` is that of its first line or row."""
    if schema.format == "jsonl":
        return JsonBlock(file, schema, piece, number)
    return (ParquetBlock if schema.format == "parquet" else TextBlock)(file, schema, piece, number)


class Front(Protocol):
    """Reads the files of one log. The rows do not depend on how a file is cut into pieces."""

    def pieces(self, file: File) -> Iterator[tuple[int, Any, int]]:
        """Yields (number, argument for `parts`, bytes of the file on disk) in order. A piece holds whole rows."""

    def anywhere(self, file: File) -> bool:
        """Whether a piece can be read without those before it."""

    def parts(self, piece: Any) -> Iterable[Any]:
        """What of a piece is encoded at a time, in order. It is read in the thread or process that encodes it."""

    def encode(self, file: File, part: Any) -> Encoded:
        """Encodes a part of a piece. May be called in any thread or process."""


class AnyLog:
    """Reads quoted text, JSON lines and parquet, with any kind of column."""

    def __init__(self, schema: Schema, labelled: bool, scoring: bool, block_bytes: int) -> None:
        self.schema, self.labelled, self.scoring, self.block_bytes = schema, labelled, scoring, block_bytes

    def pieces(self, file: File) -> Iterator[tuple[int, Any, int]]:
        for number, (piece, size) in enumerate(pieces(file, self.schema, self.block_bytes)):
            yield number, piece, size

    def anywhere(self, file: File) -> bool:
        return self.schema.format == "parquet"

    def parts(self, piece: Any) -> Iterable[Any]:
        return piece.batches() if isinstance(piece, RowGroups) else (piece,)

    def encode(self, file: File, part: Any) -> Encoded:
        return encode(read_piece(file, self.schema, part, 1), self.schema, self.labelled, self.scoring)


def front_for(schema: Schema, labelled: bool, scoring: bool, block_bytes: int) -> Front:
    """The front end for logs of this schema. Both would read equal rows; TypedText is several times as fast.

    Args:
        scoring: a column that scores do not depend on, such as the label, makes no row malformed.
    """
    return (TypedText if schema.typed_columns else AnyLog)(schema, labelled, scoring, block_bytes)
