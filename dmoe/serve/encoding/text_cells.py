"""Ids and numbers of features whose value depends on one text or one integer: all columns of a batch by a few compiled calls, which look
up the vocabularies themselves.

Shapes: B rows, I numeric features, F categorical features, P features that are looked up, J columns of whole numbers.
"""

from collections.abc import Mapping
from typing import cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dmoe.data.dataset.manifest import MISSING_ID, RARE_ID
from dmoe.data.prepare.parse.parquet_block import are_bare
from dmoe.data.prepare.schema import Categorical, Dense
from dmoe.data.prepare.tokens.buckets import Buckets, tokens_of
from dmoe.data.prepare.tokens.token_columns import whole_transformed
from dmoe.data.prepare.tokens.token_ids import HashedIds, Ids, IntegerIds, TokenIds
from dmoe.data.prepare.tokens.whole_numbers import may_match
from dmoe.serve.encoding.bucket_steps import steps_of
from dmoe.serve.encoding.cell_kernels import EDGE, HASHED, KINDS, LOW, MASK, TOKEN, bucket_ids, look_up, parse, write_log1p
from dmoe.serve.encoding.joined_tables import join_numbers, join_texts
from dmoe.serve.encoding.quick_rows import NotSimple
from dmoe.serve.encoding.spans import INTEGER, Spans


class TextCells:
    """Encodes the features of texts and whole numbers: tokens, whole-number features, and buckets of whole numbers.

    Args:
        missing: texts that mean "no value", beside the empty one.
        dense: place -> numeric feature.
        tokens: place -> categorical feature with one token a row.
        buckets: place -> bucket feature.
        ids: the vocabularies of these features. They become views of joined tables.
        edges: the buckets of these features.
        moments: name of a numeric feature -> mean and deviation, if its transform needs them.

    Attributes:
        columns: the columns to read.
    """

    def __init__(
        self,
        missing: list[str],
        dense: Mapping[int, Dense],
        tokens: Mapping[int, Categorical],
        buckets: Mapping[int, Categorical],
        ids: Mapping[str, Ids],
        edges: Mapping[str, Buckets],
        moments: Mapping[str, tuple[float, float]],
    ) -> None:
        texts = [text.encode() for text in missing if text]
        self._missing = np.frombuffer(b"".join(texts), np.uint8), np.cumsum([0, *map(len, texts)])
        features: list[Categorical | Dense] = [*tokens.values(), *dense.values(), *buckets.values()]
        self.columns = list(dict.fromkeys(one.column or one.name for one in features))
        column_of = {one.name: self.columns.index(one.column or one.name) for one in features}
        numeric = list(dict.fromkeys(column_of[one.name] for one in features[len(tokens) :]))
        self._numeric_J = np.array(numeric, np.int64)
        # A text that means "no value" may be a number: then numbers are compared as texts, too.
        self._bare = are_bare(missing)
        wholes = [one.name for one in (*tokens.values(), *buckets.values()) if one.type == "int" and isinstance(ids[one.name], IntegerIds)]
        hexes = [one.name for one in tokens.values() if one.type == "hex" and isinstance(ids[one.name], IntegerIds)]
        spelt = [one.name for one in tokens.values() if isinstance(ids[one.name], TokenIds)]
        of_hexes = join_numbers([cast(IntegerIds, ids[name]) for name in hexes], np.uint32)
        of_wholes = join_numbers([cast(IntegerIds, ids[name]) for name in wholes], np.int64)
        of_texts = join_texts([cast(TokenIds, ids[name]) for name in spelt])
        self._tables = of_hexes[:2], of_wholes[:2], of_texts[:4]
        place_of = {one.name: (place, one) for place, one in (*tokens.items(), *buckets.items())}

        def plan(name: str) -> list[int]:
            place, one = place_of[name]
            found, table = [column_of[name], place, KINDS[one.type], 0, 0, 0, 0, 0], ids[name]
            if isinstance(table, HashedIds):
                found[HASHED] = table.size
            elif isinstance(table, IntegerIds):
                low = of_hexes.low[hexes.index(name)] if name in hexes else of_wholes.low[wholes.index(name)]
                found[LOW], found[MASK] = low, len(table.keys) - 1
            elif isinstance(table, TokenIds):
                number = spelt.index(name)
                found[LOW], found[MASK] = of_texts.low[number], len(table.slots) - 1
                found[TOKEN], found[EDGE] = of_texts.token[number], of_texts.token[number] + number
            return found

        self._tokens_P8 = np.array([plan(one.name) for one in tokens.values()], np.int64).reshape(-1, 8)
        self._by_number = {
            place: (one.column or one.name, table)
            for place, one in tokens.items()
            if isinstance(table := ids[one.name], TokenIds) and len(table.numbers.numbers)
        }
        number_of = {one.name: numeric.index(column_of[one.name]) for one in features[len(tokens) :]}
        log1p = [(place, number_of[one.name]) for place, one in dense.items() if one.transform == "log1p"]
        self._log1p = np.array(log1p, np.int64).reshape(-1, 2).T.copy()
        self._dense = [(place, one, number_of[one.name]) for place, one in dense.items() if one.transform != "log1p"]
        self._moments = moments
        quick, steps = [one for one in buckets.values() if one.name in wholes], [np.zeros(0, np.int64)]
        self._buckets_P8 = np.array([plan(one.name) for one in quick], np.int64).reshape(-1, 8)
        steps_P5 = []
        for one in quick:
            found, begin = steps_of(edges[one.name]), sum(map(len, steps))
            steps_P5.append([number_of[one.name], begin, begin + len(found.steps), found.least, int(found.own)])
            steps.append(found.steps)
        self._steps = np.array(steps_P5, np.int64).reshape(-1, 5), np.concatenate(steps)
        self._other_buckets = [
            (place, number_of[one.name], edges[one.name], one.type, ids[one.name])
            for place, one in buckets.items()
            if one.name not in wholes
        ]

    def encode(self, spans: Spans, dense_BI: NDArray[np.float32], ids_BF: NDArray[np.int32]) -> None:
        """Writes these features' columns of dense_BI and ids_BF.

        Raises:
            NotSimple: a value is malformed, or too long.
        """
        if not look_up(*spans, *self._missing, self._tokens_P8, *self._tables, ids_BF):
            raise NotSimple
        for place, (name, table) in self._by_number.items():
            column, rare_B = self.columns.index(name), ids_BF[:, place] == RARE_ID
            may_match(spans.text, spans.first_CB[column], spans.end_CB[column], not table.numbers.all_plain, rare_B)
            rows = np.flatnonzero(rare_B)
            if len(rows):
                given = zip(spans.first_CB[column, rows].tolist(), spans.end_CB[column, rows].tolist(), strict=True)
                texts = [b"%d" % first if end == INTEGER else spans.text[first:end].tobytes() for first, end in given]
                ids_BF[rows, place] = table.look_up(pa.array(texts, pa.large_binary()))
        if not len(self._numeric_J):
            return
        value_JB = np.empty((len(self._numeric_J), len(ids_BF)), np.int32)
        given_JB = np.empty(value_JB.shape, np.bool_)
        if not parse(*spans, self._numeric_J, *self._missing, self._bare, value_JB, given_JB):
            raise NotSimple
        write_log1p(value_JB, given_JB, *self._log1p, dense_BI)
        for place, feature, number in self._dense:
            made_B = whole_transformed(value_JB[number], feature.transform, self._moments.get(feature.name))
            dense_BI[:, place] = np.where(given_JB[number], made_B, np.float32(0))
        bucket_ids(value_JB, given_JB, self._buckets_P8, *self._steps, self._tables[1], ids_BF)
        for place, number, buckets, kind, others in self._other_buckets:
            distinct, place_B = np.unique(buckets.of_whole(value_JB[number]), return_inverse=True)
            id_B = others.look_up(tokens_of(distinct, kind))[place_B]
            ids_BF[:, place] = np.where(given_JB[number], id_B, MISSING_ID)
