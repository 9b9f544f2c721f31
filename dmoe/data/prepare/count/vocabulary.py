"""Vocabularies: the tokens that have an id of their own. Ids: 0 missing, 1 rare, then 2, 3, ... by count descending, token ascending;
tokens that a later data set appends come behind."""

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
from dmoe.paths import write_atomic


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
    """Reads what dmoe.data.dataset.vocabulary_files wrote, from anywhere; see read_table."""
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
    """Writes a folder of vocabularies, which is there only when all of it is."""
    shutil.rmtree(folder + ".tmp", ignore_errors=True)
    os.makedirs(folder + ".tmp")
    for vocabulary in vocabularies:
        write_vocabulary(os.path.join(folder + ".tmp", f"{file_name(vocabulary.name)}.parquet"), vocabulary)
    os.replace(folder + ".tmp", folder)


def read_all(folder: str, features: Sequence[CategoricalFeature], read: Callable[[str, str], Vocabulary]) -> list[Vocabulary]:
    """The vocabularies that the data set in `folder` keeps.

    Args:
        read: of (path, feature's name).

    Raises:
        UserError: one is missing, damaged, or is not the one that the manifest was written with.
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
    """Whether a vocabulary is the manifest's. A manifest that was made before it held digests cannot tell: no token twice, at least."""
    expected = feature.identity.tokens if feature.identity else None
    if expected is None:
        if pc.count_distinct(tokens).as_py() != len(tokens):
            raise UserError(f"{path}: lists a token twice; make the data set again")
    elif tokens_digest(tokens.to_numpy() if pa.types.is_integer(tokens.type) else tokens) != expected:
        raise other_vocabulary(path)
