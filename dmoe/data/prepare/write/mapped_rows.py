"""Maps rows of parts to the columns of shards: tokens become ids, numbers become dense features.

Shapes: N rows of a batch.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dmoe.data.dataset.manifest import GROUP, MISSING_ID, WEIGHT
from dmoe.data.parquet import many_values
from dmoe.data.prepare.encode.encode_rows import LABEL
from dmoe.data.prepare.split.negatives import Negatives
from dmoe.data.prepare.tokens.coded_column import bags_of_ids
from dmoe.data.prepare.tokens.token_columns import Tokens, dense_of
from dmoe.data.prepare.tokens.token_ids import Ids

BAG_TOKENS = 8


@dataclass(frozen=True)
class Job:
    """Everything that decides the shards: rows, splits, ids, transforms and sizes.

    Attributes:
        ids: map token -> id of each categorical feature.
        cardinalities: number of ids of each categorical feature.
        moments: (mean, deviation) of each standardised number.
        shuffle: seed of the shuffle of the train split; None if it is not shuffled.
    """

    tokens: Tokens
    ids: dict[str, Ids]
    cardinalities: dict[str, int]
    moments: dict[str, tuple[float, float]]
    labelled: bool
    rows_per_shard: int
    row_group_rows: int
    negatives: Negatives | None = None
    shuffle: int | None = None

    @property
    def row_bytes(self) -> int:
        """Approximate size of a row in memory, with BAG_TOKENS tokens for each bag."""
        bags = sum(one.pooling is not None for one in self.tokens.schema.categorical)
        return 32 + 4 * len(self.tokens.schema.features) + 4 * BAG_TOKENS * bags

    @property
    def extra(self) -> list[str]:
        """The columns of shards that are neither label nor features."""
        schema = self.tokens.schema
        return [name for name, given in ((WEIGHT, schema.weight or self.negatives), (GROUP, schema.group)) if given]

    @property
    def stored(self) -> list[str]:
        """The columns of the parts that are read."""
        schema = self.tokens.schema
        given = [name for name, column in ((WEIGHT, schema.weight), (GROUP, schema.group)) if column]
        return [LABEL, *given, *(one.stored for one in schema.dense), *self.tokens.stored]

    @property
    def many(self) -> frozenset[str]:
        return many_values(self.cardinalities) | {GROUP, WEIGHT}


@dataclass(frozen=True)
class Mapped:
    """Columns of some rows.

    Attributes:
        scalars: (codes, of_code) of each column; the value of row n is of_code[codes[n]].
        bags: lists of ids of each multi-valued feature.
    """

    scalars: dict[str, tuple[NDArray[Any], NDArray[Any]]]
    bags: dict[str, pa.ListArray]


def map_rows(job: Job, batch: pa.RecordBatch) -> Mapped:
    """Maps tokens to ids, and transforms numbers; each distinct value once."""
    schema, rows = job.tokens.schema, np.arange(batch.num_rows)
    mapped = Mapped({}, {})
    for name, stored in {"label": LABEL, **{name: name for name in job.extra}}.items():
        ones = name == WEIGHT and not schema.weight
        mapped.scalars[name] = rows, np.ones(len(rows), np.float32) if ones else batch.column(stored).to_numpy()
    for one in schema.dense:
        mapped.scalars[one.name] = dense_of(batch.column(one.stored), one.transform, job.moments.get(one.name))
    for feature in schema.categorical:
        coded = job.tokens.of(feature, batch)
        of_code = np.append(np.int32(MISSING_ID), job.ids[feature.name].look_up(coded.values))
        if coded.lengths is None:
            mapped.scalars[feature.name] = coded.codes, of_code
        else:
            ids, offsets = bags_of_ids(coded.lengths, of_code[coded.codes])
            mapped.bags[feature.name] = pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), pa.array(ids))
    return mapped
