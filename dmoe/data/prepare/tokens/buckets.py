"""Bucket features: a categorical feature whose tokens are the bucket numbers of a numeric column.

Shapes: N rows.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dmoe.data.prepare.schema import Bucket, Schema
from dmoe.data.prepare.tokens.coded_column import Coded, read_coded

BUCKET_OFFSET = 3
"""Added to the log_squared buckets of v > 2, so that none of them equals a v <= 2, which is its own bucket."""
CLOSE = 1 << 12
"""Integers within a range of this size are told apart by a table instead of by sorting."""
SAMPLE = 1_000_000
"""Quantiles are computed from about so many train rows, evenly spread over the log."""


@dataclass(frozen=True)
class Buckets:
    """How the numbers of a feature become tokens. `edges` (ascending) are those of explicit and quantile buckets."""

    bucket: Bucket
    edges: NDArray[np.float64]

    def numbers(self, value_N: NDArray[np.float64]) -> NDArray[np.int64]:
        """The bucket number of each value."""
        if self.bucket.formula == "log2":
            # For the exponent e of frexp, |v| is exactly in [2^(e-1), 2^e).
            return np.sign(value_N).astype(np.int64) * np.maximum(np.frexp(value_N)[1], 0).astype(np.int64)
        if self.bucket.formula == "log_squared":
            large_N = np.floor(np.log(np.maximum(value_N, 2.0)) ** 2) + BUCKET_OFFSET
            limit = float(1 << 62)
            return np.where(value_N > 2, large_N, np.clip(np.floor(value_N), -limit, limit)).astype(np.int64)
        return np.searchsorted(self.edges, value_N, side="right").astype(np.int64)

    def of_whole(self, value_N: NDArray[np.int32]) -> NDArray[np.int64]:
        """As `numbers`, for int32 values."""
        return self.numbers(value_N.astype(np.float64))

    def coded(self, column: pa.Array, kind: str) -> Coded:
        """The tokens of a column of numbers: int64, or text."""
        if pa.types.is_dictionary(column.type):
            whole = read_coded(column)
            return Coded(whole.codes, tokens_of(self.of_whole(whole.values.to_numpy()), kind))
        given_N = column.is_valid().to_numpy(zero_copy_only=False)
        numbers, code_N = distinct(self.numbers(column.fill_null(0.0).to_numpy()))
        return Coded(np.where(given_N, code_N + 1, 0), tokens_of(numbers, kind))


def distinct(number_N: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """As np.unique with the inverse, but without sorting if the numbers are close together."""
    low, high = (int(number_N.min()), int(number_N.max())) if len(number_N) else (0, 0)
    if high - low > CLOSE:
        number_V, code_N = np.unique(number_N, return_inverse=True)
        return number_V, code_N.reshape(-1)
    there = np.zeros(high - low + 1, bool)
    there[number_N - low] = True
    return np.flatnonzero(there) + low, (np.cumsum(there) - 1)[number_N - low]


def tokens_of(number_V: NDArray[np.int64], kind: str) -> pa.Array:
    """Bucket numbers as tokens: int64, or text."""
    return pa.array(number_V) if kind == "int" else pa.array(number_V.astype(str), pa.large_string()).cast(pa.large_binary())


def quantile_edges(samples: dict[str, NDArray[np.float64]], schema: Schema) -> dict[str, list[float]]:
    """The inner edges of each quantile feature's buckets: numbers of the sample, without duplicates."""
    edges = {}
    for one in schema.categorical:
        if one.bucket and one.bucket.quantiles:
            shares = np.arange(1, one.bucket.quantiles) / one.bucket.quantiles
            sample = samples[one.name]
            edges[one.name] = np.unique(np.quantile(sample, shares, method="inverted_cdf")).tolist() if len(sample) else []
    return edges


def make_buckets(schema: Schema, edges: dict[str, list[float]]) -> dict[str, Buckets]:
    """The Buckets of every bucket feature, by name. `edges` are those of quantile features."""
    return {
        one.name: Buckets(one.bucket, np.array(edges.get(one.name, one.bucket.edges or ()), np.float64))
        for one in schema.categorical
        if one.bucket
    }
