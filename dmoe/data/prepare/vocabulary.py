"""Vocabularies: the tokens that have an id of their own. Ids: 0 missing, 1 rare, then 2, 3, ... by count descending, token ascending;
tokens that a later data set appends come behind."""

import hashlib
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dmoe.data.dataset.identity import tokens_digest
from dmoe.data.dataset.manifest import RARE_ID
from dmoe.data.prepare.spans import buffers
from dmoe.data.prepare.tokens import Ids, IntegerIds, TokenIds
from dmoe.data.prepare.vocabulary_files import read_table


@dataclass
class Vocabulary:
    """Tokens that have an id of their own, in the order of ids: tokens[i] (large_binary, or int64 of hex and int tokens), counted
    counts[i] times, has id 2 + i."""

    name: str
    tokens: pa.Array
    counts: NDArray[np.int64]

    @property
    def cardinality(self) -> int:
        return RARE_ID + 1 + len(self.tokens)

    @property
    def is_text(self) -> bool:
        return bool(pa.types.is_large_binary(self.tokens.type))

    def cut(self, tokens: int) -> "Vocabulary":
        """The first so many tokens, copied, so that the others' memory is given back."""
        if tokens >= len(self.tokens):
            return self
        return Vocabulary(self.name, self.tokens.take(pa.array(np.arange(tokens))), self.counts[:tokens].copy())

    def table(self, kind: str) -> Ids:
        """Token -> id, of tokens of the schema's type `kind`."""
        if self.is_text:
            return TokenIds(self.tokens)
        return IntegerIds(self.tokens.to_numpy().astype(np.uint32 if kind == "hex" else np.int64))


def ordered(name: str, table: pa.Table) -> Vocabulary:
    """The vocabulary of counted tokens (token, count)."""
    if pa.types.is_integer(table["token"].type):
        tokens, counts = table["token"].to_numpy().astype(np.int64), table["count"].to_numpy()
        order = np.lexsort((tokens, -counts))
        return Vocabulary(name, pa.array(tokens[order]), counts[order])
    table = table.take(pc.sort_indices(table, sort_keys=[("count", "descending"), ("token", "ascending")])).combine_chunks()
    tokens = table["token"].combine_chunks() if len(table) else pa.array([], pa.large_binary())
    return Vocabulary(name, tokens, table["count"].to_numpy())


def append_tokens(kept: Vocabulary, counted: Vocabulary) -> Vocabulary:
    """`kept` with the tokens of `counted` that it lacks behind its own, in their order: every old id stays what it was.

    A token's count stays that of the run that gave it its id.
    """
    new = pc.invert(pc.is_in(counted.tokens, kept.tokens))
    tokens = pa.concat_arrays([kept.tokens, counted.tokens.filter(new)])
    return Vocabulary(kept.name, tokens, np.concatenate([kept.counts, counted.counts[new.to_numpy(zero_copy_only=False)]]))


def digest(vocabularies: list[Vocabulary]) -> str:
    """sha256 over all names, tokens and counts (int64, little-endian; of text, the bytes and where they end) in the order of ids."""
    out = hashlib.sha256()
    for one in vocabularies:
        out.update(f"{one.name} {len(one.tokens)}\n".encode())
        if one.is_text:
            data, offsets = buffers(one.tokens)
            out.update(data[offsets[0] : offsets[-1]].tobytes() + (offsets[1:] - offsets[0]).astype("<i8").tobytes())
        else:
            out.update(one.tokens.to_numpy().astype("<i8").tobytes())
        out.update(one.counts.astype("<i8").tobytes())
    return out.hexdigest()


def digest_of(tokens: pa.Array) -> str:
    """The digest of a vocabulary's tokens, as manifests hold it."""
    return tokens_digest(tokens.to_numpy() if pa.types.is_integer(tokens.type) else tokens)


def read_vocabulary(path: str, name: str, integers: bool | None = None) -> Vocabulary:
    """Reads what dmoe.data.prepare.vocabulary_files wrote, from anywhere; see read_table."""
    table = read_table(path, integers)
    kind = pa.int64() if pa.types.is_integer(table["token"].type) else pa.large_binary()
    tokens = table["token"].combine_chunks() if len(table) else pa.array([], kind)
    return Vocabulary(name, tokens.cast(kind), table["count"].to_numpy())
