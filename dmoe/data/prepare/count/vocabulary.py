"""Vocabularies: the tokens that have an id of their own.

Id 0 is missing, id 1 is rare. Ids from 2 on are ordered by descending count, then by token. Tokens that a later data set appends get the
next ids.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dmoe.data.dataset.identity import tokens_digest
from dmoe.data.dataset.manifest import RARE_ID, CategoricalFeature
from dmoe.data.dataset.vocabulary_files import file_of, other_vocabulary, read_table, unreadable
from dmoe.data.prepare.tokens.spans import buffers
from dmoe.data.prepare.tokens.token_ids import Ids, IntegerIds, TokenIds
from dmoe.errors import UserError
from dmoe.names import file_name
from dmoe.storage.paths import write_atomic


@dataclass
class Vocabulary:
    """The tokens of a feature in the order of their ids: tokens[i] has id 2 + i and occurred counts[i] times. Tokens are large_binary, or
    int64 for the types hex and int."""

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
        """The first `tokens` tokens, copied, so that the memory of the others is released."""
        if tokens >= len(self.tokens):
            return self
        return Vocabulary(self.name, self.tokens.take(pa.array(np.arange(tokens))), self.counts[:tokens].copy())

    def table(self, kind: str) -> Ids:
        """The map token -> id. `kind` is the type of the tokens in the schema."""
        if self.is_text:
            return TokenIds(self.tokens)
        return IntegerIds(self.tokens.to_numpy().astype(np.uint32 if kind == "hex" else np.int64))


def ordered(name: str, table: pa.Table) -> Vocabulary:
    """The vocabulary of a table (token, count)."""
    if pa.types.is_integer(table["token"].type):
        tokens, counts = table["token"].to_numpy().astype(np.int64), table["count"].to_numpy()
        order = np.lexsort((tokens, -counts))
        return Vocabulary(name, pa.array(tokens[order]), counts[order])
    table = table.take(pc.sort_indices(table, sort_keys=[("count", "descending"), ("token", "ascending")])).combine_chunks()
    tokens = table["token"].combine_chunks() if len(table) else pa.array([], pa.large_binary())
    return Vocabulary(name, tokens, table["count"].to_numpy())


def append_tokens(kept: Vocabulary, counted: Vocabulary) -> Vocabulary:
    """Appends to `kept` the tokens of `counted` that it lacks, in their order. No old id changes.

    Where a vocabulary of whole numbers has `7`, it has `7.0` too: the token is looked up by its number.

    The count of a token stays that of the run that gave it its id.
    """
    if kept.is_text:
        new = TokenIds(kept.tokens).look_up(counted.tokens) == RARE_ID
    else:
        new = pc.invert(pc.is_in(counted.tokens, kept.tokens)).to_numpy(zero_copy_only=False)
    tokens = pa.concat_arrays([kept.tokens, counted.tokens.filter(pa.array(new))])
    return Vocabulary(kept.name, tokens, np.concatenate([kept.counts, counted.counts[new]]))


def digest(vocabularies: list[Vocabulary]) -> str:
    """SHA-256 of all names, tokens and counts in the order of ids (integers as little-endian int64; texts as bytes and end offsets)."""
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
    """The digest of a vocabulary's tokens, as it stands in manifests."""
    return tokens_digest(tokens.to_numpy() if pa.types.is_integer(tokens.type) else tokens)


def read_vocabulary(path: str, name: str, integers: bool | None = None) -> Vocabulary:
    """Reads a vocabulary file, local or remote; see dmoe.data.dataset.vocabulary_files.read_table."""
    table = read_table(path, integers)
    kind = pa.int64() if pa.types.is_integer(table["token"].type) else pa.large_binary()
    tokens = table["token"].combine_chunks() if len(table) else pa.array([], kind)
    return Vocabulary(name, tokens.cast(kind), table["count"].to_numpy())


def write_vocabulary(path: str, vocabulary: Vocabulary) -> None:
    """Writes token (int64 or binary), id (int32) and count (int64), atomically."""
    ids = np.arange(RARE_ID + 1, vocabulary.cardinality, dtype=np.int32)
    table = pa.table({"token": vocabulary.tokens, "id": ids, "count": vocabulary.counts})
    with write_atomic(path, sync=False) as file:
        pq.write_table(table, file, compression="zstd", compression_level=1, use_dictionary=False)


def write_all(folder: str, vocabularies: Sequence[Vocabulary]) -> None:
    """Writes a folder of vocabularies. It appears only when it is complete."""
    shutil.rmtree(folder + ".tmp", ignore_errors=True)
    os.makedirs(folder + ".tmp")
    for vocabulary in vocabularies:
        write_vocabulary(os.path.join(folder + ".tmp", f"{file_name(vocabulary.name)}.parquet"), vocabulary)
    os.replace(folder + ".tmp", folder)


def read_all(folder: str, features: Sequence[CategoricalFeature], read: Callable[[str, str], Vocabulary]) -> list[Vocabulary]:
    """The vocabularies of the data set in `folder`.

    Args:
        read: reads a vocabulary from (path, name of the feature).

    Raises:
        UserError: one is missing, damaged, or not the one that the manifest was written with.
    """
    vocabularies = []
    for feature in features:
        path = file_of(folder, feature.name)
        try:
            vocabulary = read(path, feature.name)
        except (OSError, KeyError, pa.ArrowException) as error:
            raise unreadable(path, error) from None
        if vocabulary.cardinality != feature.cardinality:
            raise UserError(f"{path}: {vocabulary.cardinality:,} ids, its manifest says {feature.cardinality:,}")
        _check_own(path, feature, vocabulary.tokens)
        vocabularies.append(vocabulary)
    return vocabularies


def _check_own(path: str, feature: CategoricalFeature, tokens: pa.Array) -> None:
    """Checks that a vocabulary belongs to the manifest. For a manifest from before digests were kept, checks only that no token occurs
    twice."""
    expected = feature.identity.tokens if feature.identity else None
    if expected is None:
        if pc.count_distinct(tokens).as_py() != len(tokens):
            raise UserError(f"{path}: lists a token twice; make the data set again")
    elif digest_of(tokens) != expected:
        raise other_vocabulary(path)
