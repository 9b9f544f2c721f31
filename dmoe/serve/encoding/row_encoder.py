"""Encodes raw rows in memory in the same way as preprocessing, with the same parsing code and the vocabularies of the training data.

Shapes: B rows, I numeric features, F categorical features.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dmoe.data.dataset.manifest import MISSING_ID
from dmoe.data.dataset.reading.bags import Bags, concatenate
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
from dmoe.serve.encoding.quick_rows import NotSimple, QuickBags, QuickBucket, QuickDense, QuickOther, columns_of
from dmoe.serve.encoding.spans import spans_of
from dmoe.serve.encoding.spelling import WHERE, Spelling, table_of
from dmoe.serve.encoding.text_cells import TextCells

PIECE, TABLE_PIECE, TABLE_ROWS = 256, 1 << 16, 1024
"""PIECE rows are encoded together: they stay in the cache of a core while their columns are read one after another; TABLE_PIECE
rows of a table. A table of more than TABLE_ROWS goes through the pipeline if there are features that `quick_rows` encodes."""


@dataclass(frozen=True)
class EncodedRows:
    """Model inputs: dense [B, I] float32, ids [B, F] int32, and the bags of multi-valued features, which are 0 in `ids_BF`."""

    dense_BI: NDArray[np.float32]
    ids_BF: NDArray[np.int32]
    bags: dict[str, Bags]

    def __len__(self) -> int:
        return len(self.ids_BF)


def concatenated(parts: Sequence[EncodedRows]) -> EncodedRows:
    """Concatenates the rows of all parts."""
    if len(parts) == 1:
        return parts[0]
    bags = {name: concatenate([one.bags[name] for one in parts]) for name in parts[0].bags}
    return EncodedRows(np.concatenate([one.dense_BI for one in parts]), np.concatenate([one.ids_BF for one in parts]), bags)


class RowEncoder:
    """Encodes raw rows.

    Args:
        kept: schema, moments, edges and vocabularies of the training data.
        dense, categorical: the features to encode, in the order of the columns of the result.

    Attributes:
        columns: the columns that rows must have; a value may be missing.
    """

    def __init__(self, kept: Kept, dense: Sequence[str], categorical: Sequence[str]) -> None:
        number_of = {one.name: one for one in kept.schema.dense}
        token_of = {one.name: one for one in kept.schema.categorical}
        self.features = [token_of[name] for name in categorical]
        # The parts of a cross are read in the same way as in the data set, even if they are not features to encode.
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
        # The splitter is only needed to assign rows to splits, which does not happen here.
        self.tokens = Tokens(self.schema, cast(PartSplitter, None), make_buckets(self.schema, kept.edges))
        tables: dict[str, Ids] = {one.name: one.table(token_of[one.name].type) for one in kept.vocabularies if one.name in categorical}
        self.ids = tables | {name: HashedIds(size) for name, size in kept.sizes.items() if name in categorical}
        unread = {one.name: one.table(token_of[one.name].type) for one in kept.vocabularies if one.name in parts and one.name not in tables}
        self._spelling = Spelling(self.schema.model_copy(update={"format": kept.schema.format}), self.ids | unread)
        self._known = frozenset(self.columns)
        self._divide()

    def encode(self, rows: pa.Table | Sequence[Mapping[str, Any]]) -> EncodedRows:
        """Encodes rows, by the fast path of `quick_rows` if possible.

        Args:
            rows: a table with all of `columns`, with types that a parquet log may have; or one dict for each row, in which an absent column
                is a missing value.

        Raises:
            UserError: a column of a table is missing, no dict has any of the columns, or preprocessing would refuse a row; names row,
                column and value.
        """
        table = isinstance(rows, pa.Table)
        if not table and len(rows) and self._known and all(map(self._known.isdisjoint, rows)):
            # Such rows are those of another model, or in a form that this program does not read: all their values would be missing.
            columns = ", ".join(map(quoted, self.columns[:3]))
            raise UserError(f"{WHERE}: no row has a column that the model reads, such as {columns}")
        if not len(rows) or (table and self._read and len(rows) > TABLE_ROWS):
            return self.encode_all(rows)
        kinds: dict[str, type] = {}
        try:
            piece = TABLE_PIECE if table else PIECE
            if len(rows) <= piece:
                return self._quickly(rows, kinds)
            return concatenated([self._quickly(rows[low : low + piece], kinds) for low in range(0, len(rows), piece)])
        except (NotSimple, UnicodeEncodeError, pa.ArrowInvalid):
            return self.encode_all(rows)

    def encode_all(self, rows: pa.Table | Sequence[Mapping[str, Any]]) -> EncodedRows:
        """Like `encode`, but always by the pipeline."""
        table = rows if isinstance(rows, pa.Table) else table_of(rows, self.columns, self.separators, self._spelling)
        for name in self.columns:
            if name not in table.column_names:
                raise UserError(f"{WHERE}: no column {quoted(name)}{nearest(name, table.column_names)}")
        chosen = self._spelling.table(table.select(list(self.columns)).combine_chunks())
        batches = chosen.to_batches() or [pa.RecordBatch.from_pylist([], schema=chosen.schema)]
        (batch,) = batches
        block = ParquetBlock(File(WHERE, 0, 0, (), self.columns, self.columns), self.schema, batch, 0)
        typed = encode(block, self.schema, labelled=False, scoring=True)
        if typed.rejects:
            first = typed.rejects[0]
            raise UserError(f"{WHERE}: row {first.line:,}: {first.reason}")
        return self._mapped(typed.batches[0])

    def _divide(self) -> None:
        """Decides how each feature is encoded by the fast path: by `cells`, or in one of the ways of `quick_rows`."""
        schema, missing = self.schema, frozenset(("", *self.schema.missing))
        whole = schema.whole_numbers
        dense = dict(enumerate(schema.dense))
        quick = {place: one for place, one in enumerate(self.features) if not (one.cross or one.part or one.pooling)}
        tokens = {place: one for place, one in quick.items() if not one.bucket}
        buckets = {place: one for place, one in quick.items() if one.bucket}
        self._cells = TextCells(
            schema.missing,
            {place: one for place, one in dense.items() if (one.column or one.name) in whole},
            tokens,
            {place: one for place, one in buckets.items() if (one.column or one.name) in whole},
            self.ids,
            self.tokens.buckets,
            self.moments,
        )
        self._dense = {
            place: QuickDense(one, missing, self.moments.get(one.name))
            for place, one in dense.items()
            if (one.column or one.name) not in whole
        }
        self._bags = {one.name: QuickBags(one, self.ids[one.name], missing) for one in self.features if one.pooling}
        self._others: dict[int, QuickBucket | QuickOther] = {}
        for place, one in enumerate(self.features):
            if one.cross or one.part:
                self._others[place] = self._quick_other(one)
            elif one.bucket and (one.column or one.name) not in whole:
                self._others[place] = QuickBucket(one, missing, self.tokens.buckets[one.name], self.ids[one.name])
        read = [name for one in (*self._dense.values(), *self._bags.values(), *self._others.values()) for name in one.names]
        self._read = list(dict.fromkeys(read))

    def _quick_other(self, feature: Categorical) -> QuickOther:
        """Makes an encoder for this feature only, which shares the vocabularies of `self`."""
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
        """Encodes rows by the fast path.

        Args:
            kinds: column -> type of its values in earlier rows.

        Raises:
            NotSimple: only the pipeline can encode these rows.
        """
        size = len(rows)
        dense_BI, ids_BF = np.empty((size, len(self.schema.dense)), np.float32), np.zeros((size, len(self.features)), np.int32)
        if self._cells.columns:
            self._cells.encode(spans_of(rows, self._cells.columns), dense_BI, ids_BF)
        columns = columns_of(rows, self._read, kinds) if self._read else {}
        for place, dense in self._dense.items():
            dense_BI[:, place] = dense.of(columns)
        for place, one in self._others.items():
            ids_BF[:, place] = one.of(columns)
        return EncodedRows(dense_BI, ids_BF, {name: one.bags(columns) for name, one in self._bags.items()})

    def _mapped(self, batch: pa.RecordBatch) -> EncodedRows:
        size = batch.num_rows
        dense_BI = np.empty((size, len(self.schema.dense)), np.float32)
        for index, number in enumerate(self.schema.dense):
            codes, of_code = dense_of(batch.column(number.stored), number.transform, self.moments.get(number.name))
            dense_BI[:, index] = of_code[codes]
        # The ids of a feature are contiguous in memory.
        ids_FB, bags = np.zeros((len(self.features), size), np.int32), {}
        for index, feature in enumerate(self.features):
            coded = self.tokens.of(feature, batch)
            id_of = np.append(np.int32(MISSING_ID), self.ids[feature.name].look_up(coded.values))
            if coded.lengths is None:
                ids_FB[index] = id_of[coded.codes]
            else:
                bags[feature.name] = Bags(*bags_of_ids(coded.lengths, id_of[coded.codes]))
        return EncodedRows(dense_BI, ids_FB.T, bags)
