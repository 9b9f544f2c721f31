"""The identity of a feature: everything that decides which number or id a value of the log becomes.

Two data sets whose features have the same names and cardinalities may still give different ids to one token. A manifest therefore holds
the identity of each feature, so that data for another model is refused (`dmoe.data.dataset.compatibility`).
"""

import hashlib
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from dmoe.config.strict import Text
from dmoe.data.dataset.part import Part

SHA256 = r"^[0-9a-f]{64}$"
PIECE = 1 << 20
"""Number of tokens that are hashed at a time, so that a vocabulary is never copied as a whole."""


Plain = Literal["text", "hex", "int", "hour", "weekday", "is_weekend", "log2", "log_squared", "edges"]


class CrossPart(Part):
    """The identity of a part of a cross; for the fields see TokenIdentity. `name` is that of the feature, or of the column."""

    added = ("edges",)
    name: Text
    source: Plain
    edges: str | None = Field(None, pattern=SHA256)


class TokenIdentity(Part):
    """The identity of a categorical feature. The ids 0 (missing) and 1 (rare) are the same in every data set.

    Attributes:
        source: how a value becomes a token: `text`, `hex` and `int` are the value itself; `hour`, `weekday` and `is_weekend` are
            parts of the time; `log2`, `log_squared` and `edges` are buckets of a number; `cross` joins the tokens of the features `cross`.
        tokens: digest of the tokens in the order of their ids (`TokenDigest`); None if no vocabulary is known.
        hashed: name of the hash function, if there is no vocabulary. The cardinality is its size.
        edges: digest of the edges of the buckets.
        max_values: number of tokens of a row that are kept.
        missing: texts that mean "no value", in addition to the empty text; sorted.
    """

    added = ("tokens", "hashed", "edges", "max_values", "missing", "cross")
    source: Plain | Literal["cross"]
    tokens: str | None = Field(None, pattern=SHA256)
    hashed: str | None = Field(None, min_length=1)
    edges: str | None = Field(None, pattern=SHA256)
    max_values: int | None = Field(None, ge=1)
    missing: tuple[str, ...] = Field((), strict=False)
    cross: tuple[CrossPart, ...] = Field((), strict=False)


class NumberIdentity(Part):
    """The identity of a dense feature, in addition to its `transform`.

    Attributes:
        moments: (mean, deviation) of a standardised feature.
        missing: texts that mean "no value", in addition to the empty text; sorted.
    """

    added = ("moments", "missing")
    moments: tuple[float, Annotated[float, Field(gt=0)]] | None = Field(None, strict=False)
    missing: tuple[str, ...] = Field((), strict=False)


class TokenDigest:
    """SHA-256 of tokens in the order of their ids. Tokens may be added in pieces of any size.

    The digest is the SHA-256 of: the text `int64` or `bytes`, the number of tokens, and the SHA-256 of two streams. One stream holds the
    length of each token (uint32, little-endian; empty for int64), the other the bytes of each token (int64 is little-endian).
    """

    def __init__(self) -> None:
        self.count = 0
        self._kind = ""
        self._lengths, self._bytes = hashlib.sha256(), hashlib.sha256()

    def add(self, tokens: Any) -> None:
        """Adds int64 tokens, [N] numpy, or an Arrow array of binary or large_binary without nulls."""
        for at in range(0, len(tokens), PIECE):
            self._add(tokens[at : at + PIECE])

    def _add(self, piece: Any) -> None:
        self.count += len(piece)
        if isinstance(piece, np.ndarray):
            self._kind = "int64"
            self._bytes.update(np.ascontiguousarray(piece, "<i8").data)
            return
        import pyarrow as pa

        self._kind = "bytes"
        array = piece.cast(pa.large_binary())
        _, offsets, data = array.buffers()
        edges = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
        self._lengths.update(np.diff(edges).astype("<u4").data)
        if edges[-1] > edges[0]:
            self._bytes.update(memoryview(data)[int(edges[0]) : int(edges[-1])])

    def hexdigest(self) -> str:
        """The digest of all tokens added so far. Empty vocabularies of both types have the same digest."""
        whole = hashlib.sha256(f"{self._kind if self.count else ''} {self.count}\n".encode())
        whole.update(self._lengths.digest())
        whole.update(self._bytes.digest())
        return whole.hexdigest()


def tokens_digest(tokens: Any) -> str:
    """The digest of the tokens of a vocabulary. For their type see `TokenDigest.add`."""
    digest = TokenDigest()
    digest.add(tokens)
    return digest.hexdigest()


def edges_digest(edges: Sequence[float] | NDArray[np.float64]) -> str:
    """SHA-256 of the edges of a bucket feature as little-endian float64."""
    return hashlib.sha256(np.asarray(edges, "<f8").tobytes()).hexdigest()
