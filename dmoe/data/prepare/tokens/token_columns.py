"""Reads the features from the parts of a log: tokens of categorical features, and transformed numbers of dense features.

Shapes: N rows, V distinct values.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dmoe.data.prepare.schema import Categorical, Schema
from dmoe.data.prepare.split.part_splitter import PartSplitter
from dmoe.data.prepare.tokens import kernels
from dmoe.data.prepare.tokens.buckets import Buckets
from dmoe.data.prepare.tokens.coded_column import TYPES, Coded, read_coded
from dmoe.data.prepare.tokens.crosses import crossed
from dmoe.data.prepare.tokens.token_ids import hashes
from dmoe.data.prepare.write.parts import read_batches


@dataclass(frozen=True)
class Tokens:
    """The tokens of the parts of a run, for counting and hashing."""

    schema: Schema
    splitter: PartSplitter
    buckets: dict[str, Buckets]

    @property
    def rows_of(self) -> list[int]:
        return [part.rows for part in self.splitter.parts]

    @property
    def types(self) -> dict[str, pa.DataType]:
        return {one.name: TYPES[one.type] for one in self.schema.categorical}

    @cached_property
    def stored(self) -> list[str]:
        return sorted({part.stored for one in self.schema.categorical for part in self.schema.parts_of(one)})

    def of(self, feature: Categorical, batch: pa.RecordBatch) -> Coded:
        """The tokens of a feature in a batch of a part."""
        if feature.cross:
            return crossed([self.of(part, batch) for part in self.schema.parts_of(feature)])
        column = batch.column(feature.stored)
        return self.buckets[feature.name].coded(column, feature.type) if feature.bucket else read_coded(column)

    def train_counts(self, number: int) -> Iterator[tuple[str, pa.Array, NDArray[np.int64]]]:
        """Yields (feature, tokens, number of occurrences of each in the train split) of part `number`, a batch at a time."""
        train_N, first, features = self.splitter.assign(number) == 0, 0, self.schema.categorical
        for batch in read_batches(self.splitter.parts[number], self.stored):
            chosen_N = train_N[first : first + batch.num_rows]
            first += batch.num_rows
            # Threads start at different features, so that they seldom wait for the same lock.
            for step in range(len(features)):
                one = features[(step + 7 * number) % len(features)]
                coded = self.of(one, batch)
                counts = np.zeros(len(coded.values) + 1, np.int64)
                kernels.histogram(coded.codes, coded.of_rows(chosen_N).view(np.uint8), counts)
                yield one.name, coded.values, counts[1:]

    def hashes(self, number: int) -> Iterator[dict[str, NDArray[np.uint64]]]:
        """Yields the hashes of each feature's distinct tokens in part `number`, a batch at a time."""
        for batch in read_batches(self.splitter.parts[number], self.stored):
            yield {one.name: hashes(pc.unique(self.of(one, batch).values)) for one in self.schema.categorical}


def numbers_of(column: pa.Array) -> NDArray[np.float64]:
    """The numbers of a column in order, without missing ones."""
    if not pa.types.is_dictionary(column.type):
        return np.asarray(column.drop_null().to_numpy())
    coded = read_coded(column)
    return coded.values.to_numpy().astype(np.float64)[coded.codes[coded.codes > 0].astype(np.int64) - 1]


def transformed(value_N: NDArray[np.float64], transform: str, moments: tuple[float, float] | None) -> NDArray[np.float32]:
    """The dense feature of finite numbers, float32. Results out of the range of float32 are clipped."""
    if transform == "log1p":
        value_N = np.copysign(np.log1p(np.abs(value_N)), value_N)
    elif transform == "standardise" and moments is not None:
        # Halved, which is exact, so that the difference of two large numbers does not overflow.
        with np.errstate(over="ignore"):
            value_N = (value_N / 2 - moments[0] / 2) / (moments[1] / 2)
    limit = float(np.finfo(np.float32).max)
    return np.clip(value_N, -limit, limit).astype(np.float32)


def whole_transformed(value_V: NDArray[np.int32], transform: str, moments: tuple[float, float] | None) -> NDArray[np.float32]:
    """As `transformed`, for int32 numbers."""
    return kernels.log1p(value_V) if transform == "log1p" else transformed(value_V.astype(np.float64), transform, moments)


def dense_of(column: pa.Array, transform: str, moments: tuple[float, float] | None) -> tuple[NDArray, NDArray[np.float32]]:
    """A dense feature as (code of each row [N], 0 if missing; value of each code [V + 1], 0.0 for code 0)."""
    if pa.types.is_dictionary(column.type):
        coded = read_coded(column)
        value_V = coded.values.to_numpy()
        return coded.codes, np.append(np.float32(0), whole_transformed(value_V, transform, moments))
    given_N = column.is_valid().to_numpy(zero_copy_only=False)
    made = transformed(column.fill_null(0.0).to_numpy(), transform, moments)
    return np.where(given_N, np.arange(1, len(given_N) + 1), 0), np.append(np.float32(0), made)
