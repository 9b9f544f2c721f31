"""A numeric column as a categorical one: the tokens of its numbers' buckets.

Shapes: N rows.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dmoe.data.criteo import BUCKET_OFFSET
from dmoe.data.log.schema import Bucket, Schema

SAMPLE = 1_000_000
"""Train rows that quantiles are taken of, about; a log has them evenly spread."""


@dataclass(frozen=True)
class Buckets:
    """How a feature's numbers become tokens. `edges` of explicit and quantile buckets, ascending."""

    bucket: Bucket
    edges: NDArray[np.float64]

    def numbers(self, value_N: NDArray[np.float64]) -> NDArray[np.int64]:
        """The number of each value's bucket, which is its token's text."""
        if self.bucket.formula == "log2":
            # frexp's exponent e has |v| in [2^(e-1), 2^e), exactly.
            return np.sign(value_N).astype(np.int64) * np.maximum(np.frexp(value_N)[1], 0).astype(np.int64)
        if self.bucket.formula == "log_squared":
            large_N = np.floor(np.log(np.maximum(value_N, 2.0)) ** 2) + BUCKET_OFFSET
            limit = float(1 << 62)
            return np.where(value_N > 2, large_N, np.clip(np.floor(value_N), -limit, limit)).astype(np.int64)
        return np.searchsorted(self.edges, value_N, side="right").astype(np.int64)

    def coded(self, column: pa.Array) -> pa.DictionaryArray:
        """A float64 column as tokens, null where it is null."""
        null_N = column.is_null().to_numpy(zero_copy_only=False)
        numbers, code_N = np.unique(self.numbers(column.fill_null(0.0).to_numpy()), return_inverse=True)
        indices = pa.array(code_N.reshape(-1).astype(np.int32), mask=null_N)
        return pa.DictionaryArray.from_arrays(indices, pa.array(numbers.astype(str), pa.large_string()))


def quantile_edges(samples: dict[str, NDArray[np.float64]], schema: Schema) -> dict[str, list[float]]:
    """The inner edges of each quantile feature's buckets: numbers of the sample, those that coincide once."""
    edges = {}
    for one in schema.categorical:
        if one.bucket and one.bucket.quantiles:
            shares = np.arange(1, one.bucket.quantiles) / one.bucket.quantiles
            sample = samples[one.name]
            edges[one.name] = np.unique(np.quantile(sample, shares, method="inverted_cdf")).tolist() if len(sample) else []
    return edges


def make_buckets(schema: Schema, edges: dict[str, list[float]]) -> dict[str, Buckets]:
    """Every bucket feature's, by its name; `edges` are those of the quantiles."""
    return {
        one.name: Buckets(one.bucket, np.array(edges.get(one.name, one.bucket.edges or ()), np.float64))
        for one in schema.categorical
        if one.bucket
    }
