"""Stage 2: the vocabulary of every categorical feature, counted over the train split in bounded memory.

Ids: 0 missing, 1 rare, then 2, 3, ... by count descending, token ascending. Counts that outgrow the limit are spilled, cut by a hash of
the token, and each cut is added up alone at the end.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dmoe.data.dataset.manifest import RARE_ID
from dmoe.data.log.buckets import Buckets
from dmoe.data.log.parts import Part, read_columns
from dmoe.data.log.tokens import hashes
from dmoe.data.progress import Progress
from dmoe.paths import PATHS

CUTS_LOG2 = 7
"""A feature's spilled counts are added up in 2^7 cuts."""


@dataclass
class Vocabulary:
    """Tokens (large_binary) that have an id of their own, in the order of ids: tokens[i] has id 2 + i."""

    name: str
    tokens: pa.Array
    counts: NDArray[np.int64]

    @property
    def cardinality(self) -> int:
        return RARE_ID + 1 + len(self.tokens)


class Counts:
    """Counts of one feature's tokens; what is added is kept in pieces until there are many."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.pieces: list[pa.Table] = []
        self.size = self.merged_size = 0
        self.spilled: list[str] = []

    def add(self, tokens: pa.Array, counts: NDArray[np.int64]) -> None:
        here = counts > 0
        table = pa.table({"token": tokens.filter(pa.array(here)), "count": counts[here]})
        self.pieces.append(table)
        self.size += table.nbytes

    def merge(self) -> pa.Table:
        merged = _summed(self.pieces)
        self.pieces, self.size, self.merged_size = [merged], merged.nbytes, merged.nbytes
        return merged

    def spill(self) -> None:
        """Writes the counts away, the cuts as a record batch each."""
        table = self.merge()
        cut = (hashes(table["token"].combine_chunks()) >> np.uint64(64 - CUTS_LOG2)).astype(np.int64)
        order = np.argsort(cut, kind="stable")
        edges = np.searchsorted(cut[order], np.arange((1 << CUTS_LOG2) + 1))
        path = os.path.join(self.folder, f"{len(self.spilled)}.arrow")
        os.makedirs(self.folder, exist_ok=True)
        with pa.OSFile(path, "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            for low, high in pairwise(edges.tolist()):
                rows = table.take(pa.array(order[low:high])).combine_chunks()
                writer.write_batch(rows.to_batches()[0] if len(rows) else pa.RecordBatch.from_pylist([], table.schema))
        self.spilled.append(path)
        self.pieces, self.size, self.merged_size = [], 0, 0

    def kept(self, min_count: int) -> pa.Table:
        """Tokens counted at least `min_count` times."""
        if not self.spilled:
            return _frequent(self.merge(), min_count)
        if self.pieces:
            self.spill()
        cuts = []
        for cut in range(1 << CUTS_LOG2):
            pieces = []
            for path in self.spilled:
                with pa.OSFile(path) as file:
                    pieces.append(pa.Table.from_batches([pa.ipc.open_file(file).get_batch(cut)]))
            cuts.append(_frequent(_summed(pieces), min_count))
        return pa.concat_tables(cuts)


def _summed(pieces: list[pa.Table]) -> pa.Table:
    if not pieces:
        return pa.table({"token": pa.array([], pa.large_binary()), "count": pa.array([], pa.int64())})
    summed = pa.concat_tables(pieces).group_by("token", use_threads=False).aggregate([("count", "sum")])
    return summed.select(["token", "count_sum"]).rename_columns(["token", "count"]).combine_chunks()


def _frequent(table: pa.Table, min_count: int) -> pa.Table:
    return table.filter(pc.greater_equal(table["count"], min_count))


def tokens_of(column: pa.Array) -> tuple[pa.Array, NDArray[np.int64], NDArray[np.int64]]:
    """(distinct tokens as large_binary; code of each token in the rows, len(tokens) where missing; row of each)."""
    rows = len(column)
    row = np.arange(rows)
    if pa.types.is_large_list(column.type):
        lengths = pc.list_value_length(column).to_numpy().astype(np.int64)
        row, column = np.repeat(row, lengths), pc.list_flatten(column)
    codes = pc.fill_null(column.indices.cast(pa.int64()), len(column.dictionary)).to_numpy()
    return column.dictionary.cast(pa.large_binary()), codes, row


def count(
    parts: list[Part],
    names: dict[str, int],
    buckets: dict[str, Buckets],
    train_rows: Callable[[int], NDArray[np.bool_]],
    memory_limit: int,
    workers: int,
    folder: str,
) -> list[Vocabulary]:
    """Counts the tokens of the train split.

    Args:
        names: of the categorical features, each with its min_count; `buckets` of those made from numbers.
        train_rows: number of a part -> [rows] bool, whether a row is in the train split.
        memory_limit: bytes for the counts, about.
        folder: for what does not fit.
    """
    counts = {name: Counts(os.path.join(folder, str(place))) for place, name in enumerate(names)}
    progress = Progress("count", total_rows=sum(part.rows for part in parts))

    def work(number: int) -> list[tuple[str, pa.Array, NDArray[np.int64]]]:
        batch, train = read_columns(parts[number], list(names)), train_rows(number)
        found = []
        for name in names:
            column = batch.column(name)
            tokens, codes, row = tokens_of(buckets[name].coded(column) if name in buckets else column)
            found.append((name, tokens, np.bincount(codes[train[row]], minlength=len(tokens) + 1)[: len(tokens)]))
        return found

    with ThreadPoolExecutor(workers) as pool:
        for at in range(0, len(parts), 4 * workers):
            for number, found in enumerate(pool.map(work, range(at, min(at + 4 * workers, len(parts)))), at):
                for name, tokens, counted in found:
                    counts[name].add(tokens, counted)
                _keep_within(list(counts.values()), memory_limit)
                progress.update(rows=parts[number].rows)
    progress.close()
    return [_ordered(name, counts[name].kept(least)) for name, least in names.items()]


def _keep_within(counts: list[Counts], limit: int) -> None:
    for one in counts:
        # Merging costs what there is, so it waits until that has doubled.
        if one.size > 2 * one.merged_size + (1 << 22):
            one.merge()
    while sum(one.size for one in counts) > limit:
        max(counts, key=lambda one: one.size).spill()


def _ordered(name: str, table: pa.Table) -> Vocabulary:
    table = table.take(pc.sort_indices(table, sort_keys=[("count", "descending"), ("token", "ascending")])).combine_chunks()
    tokens = table["token"].combine_chunks() if len(table) else pa.array([], pa.large_binary())
    return Vocabulary(name, tokens, table["count"].to_numpy())


def read_vocabulary(path: str, name: str) -> Vocabulary:
    """Reads what dmoe.data.vocabulary_files wrote."""
    with PATHS.open(path, "rb") as file:
        table = pq.read_table(file)
    tokens = table["token"].combine_chunks() if len(table) else pa.array([], pa.large_binary())
    return Vocabulary(name, tokens.cast(pa.large_binary()), table["count"].to_numpy())
