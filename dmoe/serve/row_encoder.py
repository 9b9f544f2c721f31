"""Rows in memory, encoded as the rows of a data set are: the same code types them, and the same vocabularies give their ids.

Shapes: B rows, I numeric features, F categorical features.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dmoe.data.dataset.bags import Bags, concatenate
from dmoe.data.dataset.manifest import MISSING_ID
from dmoe.data.prepare.encode.encode_rows import encode
from dmoe.data.prepare.kept import Kept
from dmoe.data.prepare.parse.parquet_block import ParquetBlock
from dmoe.data.prepare.schema import Categorical
from dmoe.data.prepare.source.log_files import File
from dmoe.data.prepare.split.part_splitter import PartSplitter
from dmoe.data.prepare.tokens.buckets import make_buckets
from dmoe.data.prepare.tokens.coded_column import bags_of_ids
from dmoe.data.prepare.tokens.token_columns import Tokens, dense_of
from dmoe.data.prepare.tokens.token_ids import HashedIds, Ids
from dmoe.errors import UserError, nearest
from dmoe.names import quoted
from dmoe.serve.quick_rows import NotSimple, QuickBucket, QuickDense, QuickOther, QuickTokens, columns_of

WHERE = "rows"
PIECE, PIECES_OF_A_TABLE = 256, 4
"""Rows that are looked at together: so many stay in a core's cache while their columns are read one after another."""


@dataclass(frozen=True)
class EncodedRows:
    """What a model takes: dense [B, I] float32, ids [B, F] int32, and the bags of multi-valued features, whose ids are 0 in `ids_BF`."""

    dense_BI: NDArray[np.float32]
    ids_BF: NDArray[np.int32]
    bags: dict[str, Bags]

    def __len__(self) -> int:
        return len(self.ids_BF)


def concatenated(parts: Sequence[EncodedRows]) -> EncodedRows:
    """All parts' rows, in order."""
    if len(parts) == 1:
        return parts[0]
    bags = {name: concatenate([one.bags[name] for one in parts]) for name in parts[0].bags}
    return EncodedRows(np.concatenate([one.dense_BI for one in parts]), np.concatenate([one.ids_BF for one in parts]), bags)


class RowEncoder:
    """Encodes rows by what a data set keeps of its making.

    Args:
        kept: of the data set that the model was trained on.
        dense, categorical: the features that are asked for, in the order of the result's columns.

    Attributes:
        columns: that rows need to have; a value may be missing.
    """

    def __init__(self, kept: Kept, dense: Sequence[str], categorical: Sequence[str]) -> None:
        number_of = {one.name: one for one in kept.schema.dense}
        token_of = {one.name: one for one in kept.schema.categorical}
        self.features = [token_of[name] for name in categorical]
        # A cross's parts are read as the data set reads them, whether they are asked for or not.
        parts = {part.name: part for one in self.features for part in kept.schema.parts_of(one) if part.name in token_of}
        self.schema = kept.schema.model_copy(
            update={
                "format": "parquet",
                "dense": [number_of[name] for name in dense],
                "categorical": list(({one.name: one for one in self.features} | parts).values()),
                "split_key": None,
            }
        ).without(kept.schema.optional_for_scores)
        self.columns = tuple(self.schema.used(labelled=False))
        self.separators = {one.column or one.name: one.separator or "|" for one in self.schema.categorical if one.pooling}
        self.moments = kept.moments
        # Only what splits rows asks for their splitter.
        self.tokens = Tokens(self.schema, cast(PartSplitter, None), make_buckets(self.schema, kept.edges))
        tables: dict[str, Ids] = {one.name: one.table(token_of[one.name].type) for one in kept.vocabularies if one.name in categorical}
        self.ids = tables | {name: HashedIds(size) for name, size in kept.sizes.items() if name in categorical}
        self._quick_dense, self._quick = self._quick_ways()

    def encode(self, rows: pa.Table | Sequence[Mapping[str, Any]]) -> EncodedRows:
        """
        Args:
            rows: a table with all of `columns`, of types that a parquet log may have; or a dict a row, in which a column that is not there
                is missing.

        Raises:
            UserError: a column that is not there, or a row that preprocessing would have refused; names row, column and value.
        """
        # A table of many rows is typed already, column by column.
        if not 0 < len(rows) <= (PIECES_OF_A_TABLE * PIECE if isinstance(rows, pa.Table) else len(rows)):
            return self.encode_all(rows)
        kinds: dict[str, type] = {}
        try:
            return concatenated([self._quickly(rows[low : low + PIECE], kinds) for low in range(0, len(rows), PIECE)])
        except (NotSimple, UnicodeEncodeError):
            return self.encode_all(rows)

    def encode_all(self, rows: pa.Table | Sequence[Mapping[str, Any]]) -> EncodedRows:
        """As `encode`, by the pipeline alone."""
        table = rows if isinstance(rows, pa.Table) else table_of(rows, self.columns, self.separators)
        for name in self.columns:
            if name not in table.column_names:
                raise UserError(f"{WHERE}: no column {quoted(name)}{nearest(name, table.column_names)}")
        chosen = table.select(list(self.columns)).combine_chunks()
        batches = chosen.to_batches() or [pa.RecordBatch.from_pylist([], schema=chosen.schema)]
        (batch,) = batches
        block = ParquetBlock(File(WHERE, 0, 0, (), self.columns, self.columns), self.schema, batch, 0)
        typed = encode(block, self.schema, labelled=False, scoring=True)
        if typed.rejects:
            first = typed.rejects[0]
            raise UserError(f"{WHERE}: row {first.line:,}: {first.reason}")
        return self._mapped(typed.batches[0])

    def _quick_ways(self) -> tuple[list[QuickDense], list[QuickTokens | QuickBucket | QuickOther]]:
        schema, missing = self.schema, frozenset(("", *self.schema.missing))
        whole = {one.name: (one.column or one.name) in schema.whole_numbers for one in schema.features}
        dense = [QuickDense(one, whole[one.name], missing, self.moments.get(one.name)) for one in schema.dense]
        found: list[QuickTokens | QuickBucket | QuickOther] = []
        for one in self.features:
            if one.cross or one.part:
                found.append(self._quick_other(one))
            elif one.bucket:
                found.append(QuickBucket(one, whole[one.name], missing, self.tokens.buckets[one.name], self.ids[one.name]))
            else:
                found.append(QuickTokens(one, self.ids[one.name], missing))
        return dense, found

    def _quick_other(self, feature: Categorical) -> QuickOther:
        """By an encoder of that feature alone, which shares this one's tables."""
        alone, known = copy.copy(self), {one.name for one in self.schema.categorical}
        needed = {one.name: one for one in (feature, *(part for part in self.schema.parts_of(feature) if part.name in known))}
        schema = self.schema.model_copy(update={"dense": [], "categorical": list(needed.values())})
        alone.features, alone.schema = [feature], schema.without(schema.optional_for_scores)
        alone.columns = tuple(alone.schema.used(labelled=False))
        alone.tokens = Tokens(alone.schema, self.tokens.splitter, self.tokens.buckets)

        def encode(rows: list[dict[str, Any]]) -> list[int]:
            try:
                found: list[int] = alone.encode_all(rows).ids_BF[:, 0].tolist()
            except UserError:
                raise NotSimple from None
            return found

        return QuickOther(alone.columns, encode)

    def _quickly(self, rows: pa.Table | Sequence[Mapping[str, Any]], kinds: dict[str, type]) -> EncodedRows:
        """
        Args:
            kinds: of the columns' values so far.

        Raises:
            NotSimple: these rows have something that only the pipeline knows.
        """
        columns, size = columns_of(rows, self.columns, kinds), len(rows)
        dense_BI = np.empty((size, len(self._quick_dense)), np.float32)
        for index, dense in enumerate(self._quick_dense):
            dense_BI[:, index] = dense.of(columns)
        ids_FB, bags = np.zeros((len(self.features), size), np.int32), {}
        for index, (feature, one) in enumerate(zip(self.features, self._quick, strict=True)):
            if feature.pooling and isinstance(one, QuickTokens):
                bags[feature.name] = one.bags(columns)
            else:
                ids_FB[index] = one.of(columns)
        return EncodedRows(dense_BI, ids_FB.T, bags)

    def _mapped(self, batch: pa.RecordBatch) -> EncodedRows:
        size = batch.num_rows
        dense_BI = np.empty((size, len(self.schema.dense)), np.float32)
        for index, number in enumerate(self.schema.dense):
            codes, of_code = dense_of(batch.column(number.stored), number.transform, self.moments.get(number.name))
            dense_BI[:, index] = of_code[codes]
        # A feature's ids lie side by side.
        ids_FB, bags = np.zeros((len(self.features), size), np.int32), {}
        for index, feature in enumerate(self.features):
            coded = self.tokens.of(feature, batch)
            id_of = np.append(np.int32(MISSING_ID), self.ids[feature.name].look_up(coded.values))
            if coded.lengths is None:
                ids_FB[index] = id_of[coded.codes]
            else:
                bags[feature.name] = Bags(*bags_of_ids(coded.lengths, id_of[coded.codes]))
        return EncodedRows(dense_BI, ids_FB.T, bags)


def table_of(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], separators: Mapping[str, str] | None = None) -> pa.Table:
    """Rows as they come out of JSON: texts, numbers, booleans, null, and lists of these; numbers that stand among texts become texts.

    Args:
        separators: of columns with several values in one text; a text among lists is cut by it.

    Raises:
        UserError: a value of another kind; names row and column.
    """
    arrays = {}
    for name in columns:
        values = [row.get(name) for row in rows]
        try:
            column = pa.array(values, from_pandas=True)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, UnicodeEncodeError):
            texts = [_as_text(value, row, name) for row, value in enumerate(values)]
            separator = (separators or {}).get(name)
            if separator and any(isinstance(one, list) for one in texts):
                texts = [one.split(separator) if isinstance(one, str) else one for one in texts]
            try:
                column = pa.array(texts)
            except (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeEncodeError):
                raise UserError(f"{WHERE}: {quoted(name)} has both lists and single values, or text that is no UTF-8") from None
        if pa.types.is_nested(column.type) and not pa.types.is_list(column.type):
            row = next(row for row, value in enumerate(values) if value is not None)
            raise UserError(f"{WHERE}: row {row:,}: {quoted(name)} is a {type(values[row]).__name__}, expected a value or a list of values")
        arrays[name] = column.cast(pa.large_string()) if pa.types.is_null(column.type) else column
    return pa.table(arrays)


def _as_text(value: Any, row: int, name: str) -> Any:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return [_as_text(one, row, name) for one in value]
    raise UserError(f"{WHERE}: row {row:,}: {quoted(name)} is a {type(value).__name__}, expected text, a number or a list of these")
